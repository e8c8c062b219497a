"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.diagnostics.viewer import show_diagnostics
from components.kubeflow_task import work

if TYPE_CHECKING:
    from kfp.dsl import Metrics, Output


def diagnostics(task: str, of: str, plan: str, magnitudes: Output[Metrics]) -> None:
    """Look into a snapshot: magnitudes by level, and the loss by noise level."""
    show_diagnostics(work(task, of, plan, magnitudes, metrics=True), magnitudes)
