"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work
from components.viewers import show_values

if TYPE_CHECKING:
    from kfp.dsl import Metrics, Output


def metrics(task: str, of: str, plan: str, values: Output[Metrics]) -> None:
    """Compare samples with reference statistics."""
    show_values(work(task, of, plan, values, metrics=True).manifest.metadata["values"], values)
