"""Tests, and programs beside them. As a package, since `python -m tests.cluster.chaos` would find another one of this name."""
