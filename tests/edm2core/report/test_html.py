"""The page: complete in itself, safe with any name, and there whatever failed."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.report import Outcome, RunInfo
from edm2core.report.html import render, value

if TYPE_CHECKING:
    from conftest import Fake

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}"


class Page(HTMLParser):
    """The page's elements and its visible text, scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.figures: dict[str, Any] = {}
        self._inside = ""
        self._id: str | None = None
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside, self._id = tag, dict(attrs).get("id")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and self._id == "figures":
            self.figures = json.loads(gzip.decompress(base64.b64decode(data)))["figures"]
        elif not self._inside:
            self.words.append(data)

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def text(demo: Fake) -> str:
    return render(demo.report())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            found = attributes.get(name) or ""
            assert found.startswith(("data:image/png;base64,", "#", "../../results/")) or not found, (tag, name, found[:80])
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "embed", "base")]
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)
    assert "http" not in str(policy)


def test_style_and_own_script_name_no_address_and_keep_nothing() -> None:
    for name in ("style.css", "figures.css", "print.css", "figures.js", "script.js", "samples.js", "tables.js", "page.js", "live.js"):
        source = (Path(__file__).parents[3] / "edm2core/report/templates" / name).read_text()
        assert not re.search(r"https?:|//[a-z]|@import|url\(|localStorage|sessionStorage|cookie", source)


def test_the_page_stays_small(text: str) -> None:
    assert len(text.encode()) < 15_000_000


def test_every_section_is_there(page: Page) -> None:
    for heading in (
        "Results",
        "Along the training",
        "Samples",
        "Training",
        "Provenance",
        "How to reproduce",
        "Recipes in full",
        "Every value",
    ):
        assert heading in page.text
    assert "All 40 tasks are done." in page.text
    assert "best of 3" in page.text
    assert "FD (digits features)" in page.text
    assert "No published values are known for digits" in page.text


def test_ids_are_unique_and_every_figure_has_its_place(page: Page) -> None:
    assert len(page.ids()) == len(set(page.ids()))
    assert page.figures.keys() <= set(page.ids())
    assert page.figures.keys() == {"metric-0", "metric-1", "training-loss", "training-lr", "training-relative_update", "confusion-matrix"}


def test_a_probe_grid_is_one_map_of_level_block_and_epoch_on_one_colour_scale(another: Callable[..., Fake]) -> None:
    html = render(another({"t: [4], blocks: [out_3]": "t: [3, 4], blocks: [out_1, out_2]"}).report())
    found = Page(html).figures["map"]
    columns = found["columns"]
    assert sorted(set(zip(columns["training"], columns["epoch"], strict=True))) == [
        (f"digits/{letter}", epoch) for letter in "CEG" for epoch in (20, 40, 60)
    ]
    assert found["chosen"] == {"epoch": 60, "training": "digits/C"}
    (drawing,) = found["drawing"]["vconcat"]
    low, high = drawing["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert (low, high) == pytest.approx((min(columns["accuracy"]), max(columns["accuracy"])))
    assert all(f"<option>digits/{letter}</option>" in html for letter in "CEG")


def test_the_slider_steps_through_the_epochs_and_each_has_one_picture_a_recipe(page: Page) -> None:
    (slider,) = [a for tag, a in page.elements if tag == "input" and a.get("type") == "range" and a.get("id") != "confusion-slider"]
    assert slider["data-epochs"] == "20,40,60"
    pictures = [a for tag, a in page.elements if tag == "img"]
    assert sorted(str(a["alt"]) for a in pictures) == [
        f"{kind} digits/{letter} at epoch {epoch}"
        for kind in ("Interpolations by", "Samples of")
        for letter in "CEG"
        for epoch in (20, 40, 60)
    ]
    assert all(a["width"] == "64" and a["height"] == "64" for a in pictures)
    shown = [a for tag, a in page.elements if tag == "div" and a.get("class") == "frame" and "hidden" not in a]
    assert {(a["data-kind"], a["data-epoch"]) for a in shown} == {("grid", "60")}


def test_class_conditional_samples_are_shown_by_class_too(demo: Fake) -> None:
    report = demo.report()
    words = '<option value="classes">by class</option>'
    assert words not in render(report)
    assert words in render(replace(report, by_class=report.grids))


def test_samples_drawn_before_there_were_interpolations_are_shown_without(demo: Fake) -> None:
    page = Page(render(replace(demo.report(), interpolations={})))
    assert "Interpolations by" not in str(page.elements)
    report = demo.report()
    some = dict(list(report.interpolations.items())[1:])
    assert "none stored with these samples" in Page(render(replace(report, interpolations=some))).text


def test_while_a_run_goes_on_the_slider_starts_where_pictures_are(fake: Fake) -> None:
    fake.make(lambda task: task.subject.epoch == 60)
    page = Page(render(fake.report(RunInfo(running=True))))
    (slider,) = [a for tag, a in page.elements if tag == "input" and a.get("type") == "range" and a.get("id") != "confusion-slider"]
    assert slider["value"] == "1"
    assert "tasks are done. This page refreshes by itself." in page.text
    assert "Still to come" in page.text


def test_an_absent_metric_is_named_with_the_reason(demo: Fake) -> None:
    page = Page(render(demo.report(RunInfo(absent={"fid": "There is no file inception.pth."}))))
    assert "Not measured absent FID There is no file inception.pth." in page.text


def test_a_restart_is_marked_on_the_loss_curve(page: Page) -> None:
    columns = page.figures["training-loss"]["columns"]
    marks = zip(columns["recipe"], columns["epoch"], columns["restart"], strict=True)
    assert [mark for mark in marks if mark[2]] == [(f"digits/{letter}", 20.0, "continued") for letter in "CEG"]


def test_hostile_names_stay_text(fake: Fake) -> None:
    fake.name = HOSTILE
    fake.text = HOSTILE
    bad = fake.find("sample", recipe="digits/C", epoch=20)
    fake.tasks = [
        replace(task, title=HOSTILE, subject=replace(task.subject, recipe=HOSTILE) if task.subject.recipe else task.subject)
        for task in fake.tasks
    ]
    fake.metadata = {"metrics": {"values": {HOSTILE: 3.0}}}
    for task in fake.tasks:
        if task.ref != bad.ref:
            fake.commit(task)
    text = render(fake.report(RunInfo({bad.ref: Outcome("failed", HOSTILE, HOSTILE)}, experiment=HOSTILE)))
    page = Page(text)
    assert "<img src=x" not in text
    assert HOSTILE in page.text
    assert not [a for _, a in page.elements if "onerror" in a]
    assert sum(tag == "script" for tag, _ in page.elements) == 7  # figures, Vega and five of the page's own


def test_a_failed_stage_is_named_with_reason_and_log_and_the_rest_is_shown(fake: Fake) -> None:
    bad = fake.find("sample", recipe="digits/E", epoch=60)
    fake.make(lambda task: task.subject.recipe == "digits/E" and task.subject.epoch == 60 and task.stage in ("sample", "metrics"))
    run = RunInfo({bad.ref: Outcome("failed", "No space left.", "runs/x/logs/7")}, command="edm2 run experiment.yaml")
    page = Page(render(fake.report(run)))
    assert "what was typed here: edm2 run experiment.yaml" in page.text
    for words in ("2 of 40 tasks have no result", bad.title, "No space left.", "runs/x/logs/7", "best of 2 (of 3 wanted)"):
        assert words in page.text
    assert page.figures.keys() == {"metric-0", "metric-1", "training-loss", "training-lr", "training-relative_update", "confusion-matrix"}


def test_what_a_reader_must_know_about_data_and_training_is_said(fake: Fake) -> None:
    fake.metadata = {"prepare": {"warning": "The images are too dark."}, "snapshot": {"nonfinite_steps": 3}}
    page = Page(render(fake.make().report()))
    assert "The images are too dark." in page.text
    assert "1437 for training, 360 for test" in page.text
    assert "digits/E, seed 0: 3" in page.text


def test_an_experiment_of_which_nothing_is_done_still_has_a_page(fake: Fake) -> None:
    page = Page(render(fake.report()))
    assert "40 of 40 tasks have no result" in page.text
    assert page.figures == {}


def test_pictures_that_are_too_many_are_thinned_and_said_so(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    report = fake.make().report()
    pictures = {**{("g", ref): png for ref, png in report.grids.items()}, **{("i", ref): png for ref, png in report.interpolations.items()}}
    monkeypatch.setattr("edm2core.report.samples.BUDGET", sum(map(len, pictures.values())) - 1)
    page = Page(render(report))
    shown = {a["data-epoch"] for _, a in page.elements if a.get("class") == "frame"}
    assert shown == {"20", "60"}
    assert "epochs 40 are left out" in page.text


def test_trainings_are_left_out_before_the_last_few_epochs_are(another: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    report = another({"seeds: [0]": "seeds: [0, 1]"}).report()
    monkeypatch.setattr("edm2core.report.samples.BUDGET", sum(map(len, report.grids.values())) * 1.2)
    page = Page(render(report))
    assert {a["data-epoch"] for _, a in page.elements if a.get("class") == "frame"} == {"20", "40", "60"}
    assert "seed 1 are left out" in page.text


def test_a_large_experiment_stays_below_15_megabytes(full: Fake) -> None:
    report = full.report()
    fat = {ref: png + bytes(600_000 - len(png)) for ref, png in report.grids.items()}
    text = render(replace(report, grids=fat, interpolations=fat, neighbours={ref: fat[next(iter(fat))] for ref in report.neighbours}))
    page = Page(text)
    assert sum(map(len, fat.values())) * 2 > 60_000_000
    assert 6_000_000 < len(text.encode()) < 15_000_000
    assert {a["data-epoch"] for _, a in page.elements if a.get("class") == "frame"} == {"60"}
    assert "epochs 20, 40 and seed 0 · EMA 0.050" in page.text


def test_of_very_many_values_the_rest_is_in_the_table_beside_the_page(demo: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edm2core.report.html.MOST_ROWS", 5)
    page = Page(render(demo.report()))
    assert "the other 14 are only in results.csv beside it" in page.text


def test_recipes_of_different_data_sets_have_their_own_tables(another: Callable[..., Fake]) -> None:
    fake = another(
        {"digits/C, digits/E, digits/G": "cifar100/C, cifar100/E, cifar10/C", "[fd]": "[fid]", "count: 2000": "count: 3000"},
        "inception_weights: weights.pth\n",
    )
    page = Page(render(fake.report()))
    labels = [a["aria-label"] for tag, a in page.elements if tag == "div" and str(a.get("aria-label")).startswith("Results on")]
    assert labels == ["Results on cifar100", "Results on cifar10"]
    assert "samples 3000 instead of 50000" in page.text


def test_values_have_digits_that_mean_something() -> None:
    assert [value(12.345), value(0.00123), value(93.456, "probe_accuracy"), value(None)] == ["12.35", "0.00123", "93.46", "—"]


def test_the_nearest_training_images_stand_beside_the_share(another: Callable[..., Fake]) -> None:
    fake = another({"[fd]": "[memorisation]", "digits/E, digits/G": "digits/E"}, make=False)
    found = {"samples": [3], "training": [5], "ratios": [0.125]}
    fake.metadata = {"metrics": {"values": {"memorisation_digits": 0.02}, "neighbours": found, "extractor": "digits"}}
    page = Page(render(fake.make().report()))
    assert "digits/C @ 60: 2.00 % of 2000 samples suspiciously near" in page.text
    assert "of the nearest to the second nearest distance is 0.12" in page.text
    assert sum("above the training image nearest" in str(a.get("alt")) for tag, a in page.elements if tag == "img") == 2


def test_every_value_of_samples_says_how_many_and_how_sure(demo: Fake) -> None:
    page = Page(render(demo.report()))
    assert "lower is better · n = 2000" in page.text
    assert "sampling ± 0.25" in page.text


def test_the_smallest_of_draws_has_a_table_of_its_own(another: Callable[..., Fake]) -> None:
    page = Page(render(another({"steps: 18": "steps: 18, draws: 3", "20, 40, 60": "20"}).report()))
    assert "Smallest of 3 draws: FD (digits features)" in page.text


def test_every_value_leads_to_its_manifest_beside_the_run(demo: Fake, page: Page) -> None:
    links = [str(a["href"]) for tag, a in page.elements if tag == "a" and str(a.get("href")).startswith("../")]
    runs = demo.store.root / "runs" / "demo"
    assert all((runs / link).resolve().is_file() for link in links)
    metrics = [task.ref for task in demo.tasks if task.stage in ("metrics", "probe")]
    assert {f"../../{ref.manifest}" for ref in metrics} <= set(links)
    cells = [a for tag, a in page.elements if tag == "a" and a.get("class") == "from"]
    assert len(cells) == 3 * 2 * 2 + 1  # last and best of two metrics of three recipes, and raw pixels above


def test_the_mean_of_draws_leads_to_each(another: Callable[..., Fake]) -> None:
    fake = another({"steps: 18": "steps: 18, draws: 3", "20, 40, 60": "20", "digits/C, digits/E, digits/G": "digits/G"})
    page = Page(render(fake.report()))
    linked = {a["href"] for tag, a in page.elements if tag == "a" and a.get("class") == "from"}
    assert {f"../../{task.ref.manifest}" for task in fake.tasks if task.stage == "metrics"} <= linked
