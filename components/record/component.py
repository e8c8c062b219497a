"""As Kubeflow Pipelines sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.record.begin import begin

if TYPE_CHECKING:
    from kfp.dsl import HTML, Metrics, Output


def record(packed: str, run: str, store: str, profile: str, overview: Output[HTML], counts: Output[Metrics]) -> dict[str, str]:
    """Write the experiment and its plan into the run's folder, and say what the store lacks of it; the report too, if it lacks nothing."""
    return begin(packed, run, store, profile, overview, counts)
