"""Tests, and programs that share their helpers: so that `python -m tests.cluster.chaos` finds them, and not another package of this name."""
