"""As Kubeflow Pipelines sees it."""

from kfp.dsl import HTML, Dataset, Input, Model, Output


def snapshot(task: str, run: str, store: str, profile: str, data: Input[Dataset], snapshot: Output[Model], curves: Output[HTML]) -> None:
    """Train a trajectory up to one epoch, or wait until the job that trains it is there."""
    from components.body import work
    from components.viewers import show_curves

    show_curves(work(task, run, store, profile, snapshot), curves)
