"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work

if TYPE_CHECKING:
    from kfp.dsl import Model, Output


def extractor(task: str, of: str, plan: str, extractor: Output[Model]) -> None:
    """Train or fetch the network whose features are compared."""
    work(task, of, plan, extractor)
