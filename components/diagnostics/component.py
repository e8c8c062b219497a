"""As Kubeflow Pipelines sees it."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output


def diagnostics(
    task: str,
    run: str,
    store: str,
    profile: str,
    data: Input[Dataset],
    snapshot: Input[Model],
    result: Output[Artifact],
    values: Output[Metrics],
) -> None:
    """Look into a snapshot: magnitudes by level, and the loss by noise level."""
    from components.body import work
    from components.viewers import show_diagnostics

    show_diagnostics(work(task, run, store, profile, result), values)
