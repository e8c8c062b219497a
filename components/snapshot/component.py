"""As Kubeflow Pipelines sees it. Its executor cannot hand over an optional artifact, so there is one function for each set of inputs."""

from kfp.dsl import HTML, Dataset, Input, Model, Output


def snapshot(task: str, run: str, store: str, profile: str, data: Input[Dataset], snapshot: Output[Model], curves: Output[HTML]) -> None:
    """Train a trajectory up to one epoch, or wait until the job that trains it is there."""
    from components.body import work
    from components.viewers import show_curves

    show_curves(work(task, run, store, profile, snapshot), curves)


def started_snapshot(
    task: str,
    run: str,
    store: str,
    profile: str,
    data: Input[Dataset],
    start: Input[Model],
    snapshot: Output[Model],
    curves: Output[HTML],
) -> None:
    """Train on from a checkpoint up to one epoch, or wait until the job that does is there."""
    from components.body import work
    from components.viewers import show_curves

    show_curves(work(task, run, store, profile, snapshot), curves)
