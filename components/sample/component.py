"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work
from components.sample.viewer import show_grid

if TYPE_CHECKING:
    from kfp.dsl import HTML, Dataset, Output


def sample(task: str, of: str, plan: str, samples: Output[Dataset], pictures: Output[HTML]) -> None:
    """Draw images from a snapshot."""
    show_grid(work(task, of, plan, samples), pictures)
