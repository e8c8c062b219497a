"""An experiment as a package for Kubeflow Pipelines, and what is asked of a server."""
