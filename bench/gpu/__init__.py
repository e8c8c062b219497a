"""Measurements on a GPU: `python -m bench.gpu` takes a session of them, the most important first."""
