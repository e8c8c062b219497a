"""Runs an experiment by one command, on this machine or as jobs of a cluster."""
