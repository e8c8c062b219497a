"""What Kubeflow shows of a snapshot: the training up to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from components.kubeflow_task import Done, stage_component
from components.viewer_output import show_figures
from edm2core.report.figures import Styles, curve_figures

if TYPE_CHECKING:
    from kfp.dsl import HTML, Output


def show_curves(done: Done, curves: Output[HTML]) -> None:
    lines = [json.loads(line) for line in done.read("curve.jsonl").decode().splitlines()]
    recipe, seed = str(done.manifest.metadata.get("recipe") or "training"), int(done.manifest.metadata.get("seed") or 0)
    show_figures(done.manifest.title, curve_figures([(recipe, seed, lines)], Styles([recipe], [seed], [])), curves)


component = stage_component("snapshot", show_curves)
