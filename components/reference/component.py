"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import work

if TYPE_CHECKING:
    from kfp.dsl import Artifact, Output


def reference(task: str, of: str, plan: str, reference: Output[Artifact]) -> None:
    """Take the training images' statistics in the extractor's features."""
    work(task, of, plan, reference)
