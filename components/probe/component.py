"""As Kubeflow Pipelines sees it."""

from typing import Optional

from kfp.dsl import Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output


def probe(
    task: str,
    run: str,
    store: str,
    profile: str,
    data: Input[Dataset],
    result: Output[Artifact],
    values: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    snapshot: Optional[Input[Model]] = None,  # noqa: UP045 (as KFP reads it)
) -> None:
    """Train linear probes on the snapshot's features; without a snapshot, on raw pixels."""
    from components.body import work
    from components.viewers import show_confusion, show_values

    done = work(task, run, store, profile, result)
    names = ("probe_accuracy", "pixel_accuracy")
    show_values({name: done.manifest.metadata[name] for name in names if name in done.manifest.metadata}, values)
    show_confusion(done, confusion)
