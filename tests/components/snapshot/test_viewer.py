import json
from pathlib import Path

from kfp.dsl import HTML

from components.kubeflow_task import Done
from components.snapshot import show_curves


def shown(done: Done, page: HTML, curve: str) -> str:
    done.store.write(done.manifest.path("curve.jsonl"), curve.encode())
    show_curves(done, page)
    return Path(page.path).read_text()


def test_curves_pass_over_restarts_and_what_is_not_finite(done: Done, page: HTML) -> None:
    rows = [{"epoch": e, "step": e, "loss": 1 / (e + 1), "lr": 0.01} for e in range(2000)]
    lines = [json.dumps(row) for row in [{"restart": True, "step": 3}, {"epoch": 0.5, "loss": None}, *rows]]
    text = shown(done, page, "\n".join(lines))
    assert text.count("<svg") == 2
    assert "training loss · lower is better" in text
    assert "<script" not in text
    assert len(text) < 40_000


def test_a_training_that_logged_nothing_yet_says_so(done: Done, page: HTML) -> None:
    text = shown(done, page, '{"restart": true, "step": 3}\n')
    assert "<svg" not in text
    assert "nothing to draw yet" in text
