import json
import math
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Metrics

from components.kubeflow_task import Done
from components.viewers import LARGEST_MATRIX, show_curves, show_grid, show_probe, show_values
from edm2core.plan.manifest import Manifest
from edm2core.store.local import LocalStore


@pytest.fixture
def done(tmp_path: Path) -> Done:
    manifest = Manifest("probe", 1, "key", "C <b>& E", {}, {}, {}, "attempt", {})
    return Done(manifest, LocalStore(tmp_path / "store"))


def put(done: Done, name: str, data: bytes) -> None:
    done.store.write(done.manifest.path(name), data)


def html(tmp_path: Path) -> HTML:
    return HTML(uri=str(tmp_path / "page.html"))


def text(artifact: Artifact) -> str:
    return Path(artifact.path).read_text()


def test_only_finite_numbers_are_published() -> None:
    metrics = Metrics()
    show_values({"fid": 2.5, "kid": math.nan, "is": math.inf, "n": None, "probe_accuracy": 93}, metrics)
    assert metrics.metadata == {"fid": 2.5, "probe_accuracy": 93.0}


def test_a_confusion_matrix_has_true_classes_as_rows(done: Done) -> None:
    put(done, "probe.json", json.dumps({"classes": ["cat", "dog"], "confusion": [[3, 1], [0, 4]]}).encode())
    artifact = ClassificationMetrics()
    show_probe(done, Metrics(), artifact)
    matrix: dict[str, Any] = artifact.metadata["confusionMatrix"]
    assert [spec["displayName"] for spec in matrix["annotationSpecs"]] == ["cat", "dog"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 1], [0, 4]]


def test_a_matrix_too_large_for_the_viewer_is_left_out(done: Done) -> None:
    n = LARGEST_MATRIX + 1
    put(done, "probe.json", json.dumps({"classes": list(range(n)), "confusion": [[0] * n] * n}).encode())
    artifact = ClassificationMetrics()
    show_probe(done, Metrics(), artifact)
    assert artifact.metadata == {}


def test_a_grid_stands_inside_its_page_under_an_escaped_title(done: Done, tmp_path: Path) -> None:
    put(done, "grid.png", b"\x89PNG")
    page = html(tmp_path)
    show_grid(done, page)
    assert 'src="data:image/png;base64,iVBORw=="' in text(page)
    assert "C &lt;b&gt;&amp; E" in text(page)
    assert "http" not in text(page)


def test_curves_pass_over_restarts_and_what_is_not_finite(done: Done, tmp_path: Path) -> None:
    rows = [{"epoch": e, "step": e, "loss": 1 / (e + 1), "lr": 0.01} for e in range(2000)]
    lines = [json.dumps(row) for row in [{"restart": True, "step": 3}, {"epoch": 0.5, "loss": None}, *rows]]
    put(done, "curve.jsonl", "\n".join(lines).encode())
    page = html(tmp_path)
    show_curves(done, page)
    assert text(page).count("<svg") == 2
    assert "loss: " in text(page)
    assert len(text(page)) < 20_000


def test_a_curve_of_one_point_is_no_drawing(done: Done, tmp_path: Path) -> None:
    put(done, "curve.jsonl", b'{"epoch": 1.0, "step": 3, "loss": 0.5, "lr": 0.1}\n')
    page = html(tmp_path)
    show_curves(done, page)
    assert "<svg" not in text(page)
