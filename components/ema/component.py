"""As Kubeflow Pipelines sees it."""

from kfp.dsl import Input, Model, Output


def ema(task: str, run: str, store: str, profile: str, snapshot: Input[Model], ema: Output[Model]) -> None:
    """Mix an average of another width from those that training stored."""
    from components.body import work

    work(task, run, store, profile, ema)
