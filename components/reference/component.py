"""As Kubeflow Pipelines sees it."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output


def reference(
    task: str, run: str, store: str, profile: str, data: Input[Dataset], extractor: Input[Model], reference: Output[Artifact]
) -> None:
    """Take the training images' statistics in the extractor's features."""
    from components.body import work

    work(task, run, store, profile, reference)
