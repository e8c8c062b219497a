import json
from typing import Any

from kfp.dsl import ClassificationMetrics, Metrics

from components.kubeflow_task import Done
from components.probe import LARGEST_MATRIX, show_probe


def confusion(done: Done, classes: list[Any], matrix: list[list[int]]) -> dict[str, Any]:
    """The metadata of the artifact that shows a confusion matrix."""
    done.store.write(done.manifest.path("probe.json"), json.dumps({"classes": classes, "confusion": matrix}).encode())
    artifact = ClassificationMetrics()
    show_probe(done, Metrics(), artifact)
    return dict(artifact.metadata)


def test_a_confusion_matrix_has_true_classes_as_rows(done: Done) -> None:
    matrix = confusion(done, ["cat", "dog"], [[3, 1], [0, 4]])["confusionMatrix"]
    assert [spec["displayName"] for spec in matrix["annotationSpecs"]] == ["cat", "dog"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 1], [0, 4]]


def test_a_matrix_too_large_for_the_viewer_is_left_out(done: Done) -> None:
    n = LARGEST_MATRIX + 1
    assert confusion(done, list(range(n)), [[0] * n] * n) == {}
