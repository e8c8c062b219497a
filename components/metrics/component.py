"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work
from components.metrics.viewer import show_metrics

if TYPE_CHECKING:
    from kfp.dsl import Metrics, Output


def metrics(task: str, of: str, plan: str, values: Output[Metrics]) -> None:
    """Compare samples with reference statistics."""
    show_metrics(work(task, of, plan, values, metrics=True), values)
