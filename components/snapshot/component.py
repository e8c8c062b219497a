"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work
from components.snapshot.viewer import show_curves

if TYPE_CHECKING:
    from kfp.dsl import HTML, Model, Output


def snapshot(task: str, of: str, plan: str, snapshot: Output[Model], curves: Output[HTML]) -> None:
    """Train a trajectory up to one epoch, or wait until the job that trains it is there."""
    show_curves(work(task, of, plan, snapshot), curves)
