"""What Kubeflow shows of a probe: its accuracies and its confusion matrix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from components.kubeflow_task import Done, stage_component
from components.viewer_output import show_values
from edm2core.words import printable

if TYPE_CHECKING:
    from kfp.dsl import ClassificationMetrics, Metrics, Output

LARGEST_MATRIX = 100  # classes; the metadata of a larger one is more than the viewer and its database take


def show_probe(done: Done, accuracy: Output[Metrics], confusion: Output[ClassificationMetrics]) -> None:
    """Rows of the matrix are true classes, columns predicted ones."""
    show_values(done.manifest.measured, accuracy)
    probe = json.loads(done.read("probe.json"))
    if len(probe["classes"]) <= LARGEST_MATRIX:
        confusion.log_confusion_matrix([printable(str(name)) for name in probe["classes"]], probe["confusion"])


component = stage_component("probe", show_probe)
