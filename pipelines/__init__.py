"""Whole experiments: run here, driven onto a cluster, or compiled for Kubeflow Pipelines."""
