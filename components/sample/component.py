"""As Kubeflow Pipelines sees it."""

from kfp.dsl import HTML, Dataset, Input, Model, Output


def sample(task: str, run: str, store: str, profile: str, snapshot: Input[Model], samples: Output[Dataset], grid: Output[HTML]) -> None:
    """Draw images from a snapshot."""
    from components.body import work
    from components.viewers import show_grid

    show_grid(work(task, run, store, profile, samples), grid)
