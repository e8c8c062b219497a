"""As Kubeflow Pipelines sees it."""

from kfp.dsl import Dataset, Output


def prepare(task: str, run: str, store: str, profile: str, data: Output[Dataset]) -> None:
    """Bring a data set to its prepared form."""
    from components.body import work

    work(task, run, store, profile, data)
