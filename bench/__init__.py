"""Benchmarks: the product's path against a plain one, side by side in one run. `python -m bench` writes RESULTS.md."""
