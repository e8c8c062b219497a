"""Describes jobs (spec.py), runs them as local processes or as jobs of a cluster, and follows them."""
