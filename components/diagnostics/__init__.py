"""What Kubeflow shows of diagnostics: the magnitudes of each level's activations and weights, and their means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kubeflow_task import Done, stage_component
from components.viewer_output import show_values

if TYPE_CHECKING:
    from kfp.dsl import Metrics, Output


def show_diagnostics(done: Done, magnitudes: Output[Metrics]) -> None:
    facts = done.manifest.metadata
    for kind in ("activation", "weight"):
        levels = {f"{kind} {level['level']}": level[kind] for level in facts["levels"]}
        show_values({f"{kind} magnitude": facts[kind], **levels}, magnitudes)


component = stage_component("diagnostics", show_diagnostics)
