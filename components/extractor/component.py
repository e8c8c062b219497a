"""As Kubeflow Pipelines sees it."""

from typing import Optional

from kfp.dsl import Dataset, Input, Model, Output


def extractor(
    task: str,
    run: str,
    store: str,
    profile: str,
    extractor: Output[Model],
    data: Optional[Input[Dataset]] = None,  # noqa: UP045 (as KFP reads it)
) -> None:
    """Provide the network whose features are compared: fetched, or trained on the data."""
    from components.body import work

    work(task, run, store, profile, extractor)
