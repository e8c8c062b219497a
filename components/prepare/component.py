"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work

if TYPE_CHECKING:
    from kfp.dsl import Dataset, Output


def prepare(task: str, of: str, plan: str, data: Output[Dataset]) -> None:
    """Bring a data set to its prepared form."""
    work(task, of, plan, data)
