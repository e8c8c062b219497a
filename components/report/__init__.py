"""The report of a run, written from the store; on Kubeflow Pipelines the task that always comes last."""
