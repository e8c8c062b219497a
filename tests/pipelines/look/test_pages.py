"""Every page of a store that holds an experiment of every shape, and what Kubeflow shows of its results."""

from pathlib import Path

import pytest
from kfp.dsl import HTML, ClassificationMetrics, Metrics

from components.diagnostics import show_diagnostics
from components.kubeflow_task import Done
from components.metrics import show_metrics
from components.probe import show_probe
from components.sample import show_grid
from components.snapshot import show_curves
from edm2core.store.results import load
from edm2core.store.runs import Run, record
from pipelines.look.pages import Pages
from pipelines.look.runs import Look
from tests.edm2core.report.shapes import SHAPES, made
from tests.edm2core.report.test_html import Page


@pytest.mark.parametrize("shape", SHAPES)
def test_every_page_is_whole(shape: str) -> None:
    fake = made(shape).fake
    record(Run("one", fake.store), "one", "", fake.tasks, {})
    pages = Pages(Look(fake.store))
    texts = [pages.runs(), pages.runs(live=True), pages.run("one"), pages.run("one", live=True), pages.stages()]
    texts.append(pages.error("404", "There is no such page.", "Go back."))
    first = {task.stage: task for task in fake.tasks}
    for stage, task in first.items():
        texts.append(pages.log("one", stage, task.key))
        if fake.store.folders(f"results/{stage}/"):
            texts.append(pages.stage(stage, 1))
        if made(shape).report.results[task.ref].manifest:
            texts.append(pages.result(stage, task.key))
    for text in [*texts, pages.runs_json(), pages.run_json("one")]:
        text.encode()
    for text in texts:
        assert "<img src=x" not in text
        ids = Page(text).ids()
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_viewer_shows_what_there_is(shape: str, tmp_path: Path) -> None:
    fake = made(shape).fake
    report = made(shape).report
    shown = {(task.stage, task.subject.dataset, task.subject.recipe): task for task in fake.tasks if report.results[task.ref].manifest}
    assert bool(shown) == (shape not in ("never begun", "running, nothing measured yet"))
    for number, task in enumerate(shown.values()):  # the last of each recipe: drawing the curves of every epoch and seed takes seconds
        if not (manifest := load(fake.store, task.ref)):
            continue
        done, page = Done(manifest, fake.store), HTML(uri=str(tmp_path / f"{number}.html"))
        if task.stage == "metrics":
            show_metrics(done, Metrics())
        elif task.stage == "probe":
            show_probe(done, Metrics(), ClassificationMetrics())
        elif task.stage == "diagnostics":
            show_diagnostics(done, Metrics())
        elif task.stage in ("sample", "snapshot"):
            (show_grid if task.stage == "sample" else show_curves)(done, page)
            assert "<img src=x" not in Path(page.path).read_text(encoding="utf-8")
