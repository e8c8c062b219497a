"""What Kubeflow shows of metrics: each one's number."""

from __future__ import annotations

from typing import Any

from components.kubeflow_task import Done
from components.viewer_output import show_values


def show_metrics(done: Done, metrics: Any) -> None:
    show_values(done.manifest.metadata["values"], metrics)
