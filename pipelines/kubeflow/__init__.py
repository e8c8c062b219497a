"""Packages of experiments for Kubeflow Pipelines, and requests to its server."""
