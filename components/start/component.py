"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work

if TYPE_CHECKING:
    from kfp.dsl import Model, Output


def start(task: str, of: str, plan: str, start: Output[Model]) -> None:
    """Read another implementation's checkpoint, for a training that goes on from it."""
    work(task, of, plan, start)
