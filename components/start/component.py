"""As Kubeflow Pipelines sees it."""

from kfp.dsl import Model, Output


def start(task: str, run: str, store: str, profile: str, start: Output[Model]) -> None:
    """Read another implementation's checkpoint, for a training that goes on from it."""
    from components.body import work

    work(task, run, store, profile, start)
