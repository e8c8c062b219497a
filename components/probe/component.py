"""As Kubeflow Pipelines sees it. Its executor cannot hand over an optional artifact, so there is one function for each set of inputs."""

from kfp.dsl import Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output


def probe(
    task: str,
    run: str,
    store: str,
    profile: str,
    data: Input[Dataset],
    snapshot: Input[Model],
    result: Output[Artifact],
    values: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> None:
    """Train linear probes on the snapshot's features."""
    from components.body import work
    from components.viewers import show_probe

    show_probe(work(task, run, store, profile, result), values, confusion)


def pixel_probe(
    task: str,
    run: str,
    store: str,
    profile: str,
    data: Input[Dataset],
    result: Output[Artifact],
    values: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> None:
    """Train a linear probe on raw pixels, for comparison."""
    from components.body import work
    from components.viewers import show_probe

    show_probe(work(task, run, store, profile, result), values, confusion)
