"""As Kubeflow Pipelines sees it."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output


def metrics(
    task: str,
    run: str,
    store: str,
    profile: str,
    samples: Input[Dataset],
    data: Input[Dataset],
    reference: Input[Artifact],
    extractor: Input[Model],
    result: Output[Artifact],
    values: Output[Metrics],
) -> None:
    """Compare samples with reference statistics."""
    from components.body import work
    from components.viewers import show_values

    show_values(work(task, run, store, profile, result).manifest.metadata["values"], values)
