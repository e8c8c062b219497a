"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.report.finish import finish

if TYPE_CHECKING:
    from kfp.dsl import HTML, Metrics, Output


def report(run: str, store: str, profile: str, part: str, page: Output[HTML], latest: Output[Metrics]) -> None:
    """Write the run's report from what is in the store, and stop jobs that nobody follows; runs last, whatever failed before."""
    finish(run, store, profile, part, page, latest)
