"""As Kubeflow Pipelines sees it. Its executor cannot hand over an optional artifact, so there is one function for each set of inputs."""

from kfp.dsl import Dataset, Input, Model, Output


def extractor(task: str, run: str, store: str, profile: str, data: Input[Dataset], extractor: Output[Model]) -> None:
    """Train the network whose features are compared."""
    from components.body import work

    work(task, run, store, profile, extractor)


def fetch_extractor(task: str, run: str, store: str, profile: str, extractor: Output[Model]) -> None:
    """Fetch the published network whose features are compared."""
    from components.body import work

    work(task, run, store, profile, extractor)
