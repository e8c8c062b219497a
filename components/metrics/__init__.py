"""What Kubeflow shows of metrics: each one's number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import Done, stage_component
from components.viewer_output import show_values

if TYPE_CHECKING:
    from kfp.dsl import Metrics, Output


def show_metrics(done: Done, values: Output[Metrics]) -> None:
    show_values(done.manifest.metadata["values"], values)


component = stage_component("metrics", show_metrics)
