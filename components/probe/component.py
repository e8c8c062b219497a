"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work
from components.probe.viewer import show_probe

if TYPE_CHECKING:
    from kfp.dsl import ClassificationMetrics, Metrics, Output


def probe(task: str, of: str, plan: str, accuracy: Output[Metrics], confusion: Output[ClassificationMetrics]) -> None:
    """Train linear probes on the snapshot's features, or one on raw pixels for comparison."""
    show_probe(work(task, of, plan, accuracy, metrics=True), accuracy, confusion)
