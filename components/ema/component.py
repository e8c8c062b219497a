"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work

if TYPE_CHECKING:
    from kfp.dsl import Model, Output


def ema(task: str, of: str, plan: str, average: Output[Model]) -> None:
    """Mix an average of another width from those that training stored."""
    work(task, of, plan, average)
