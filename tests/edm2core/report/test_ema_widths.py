"""A metric against the width of the average, and each training's best width."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edm2core.report.ema_widths import sweeps
from edm2core.report.figures import Styles, sweep_figures
from edm2core.report.html import render
from edm2core.report.results import rows
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake

WIDTHS = {"steps: 18": "steps: 18, ema: [fixed, 0.025, 0.05, 0.075, 0.1, 0.15]"}


@pytest.fixture
def swept(another: Callable[..., Fake]) -> Fake:
    return another({**WIDTHS, "epochs: [20, 40, 60]": "epochs: [40, 60]"})


def test_each_training_has_its_best_width(swept: Fake) -> None:
    found = sweeps(rows(swept.report()))
    assert {(sweep.recipe, sweep.epoch): sweep.best[0] for sweep in found} == {
        (f"digits/{config}", epoch): width for config, width in (("C", 0.025), ("E", 0.075), ("G", 0.1)) for epoch in (40, 60)
    }
    assert {sweep.recipe for sweep in found if sweep.at_an_end} == {"digits/C"}
    for sweep in found:
        assert list(sweep.values) == [0.025, 0.05, 0.075, 0.1, 0.15]
        assert sweep.fixed is not None
        assert sweep.best[1] < sweep.fixed


def test_a_single_width_is_no_sweep(another: Callable[..., Fake]) -> None:
    fake = another({"steps: 18": "steps: 18, ema: [fixed, 0.05]"})
    assert sweeps(rows(fake.report())) == []
    assert "By the width of the average" not in render(fake.report())


def test_the_figure_shows_the_last_epoch_and_marks_the_best(swept: Fake) -> None:
    report = swept.report()
    (figure,) = sweep_figures(sweeps(rows(report)), Styles.of(report))
    assert valid(figure)
    stored = [row for row in figure.rows if row["width"] is not None]
    assert [row["recipe"] for row in stored if row["best"]] == ["digits/C", "digits/E", "digits/G"]
    assert [row["width"] for row in stored if row["best"]] == [0.025, 0.075, 0.1]
    for best in (row for row in stored if row["best"]):
        assert best["value"] == min(row["value"] for row in stored if row["recipe"] == best["recipe"])
    assert [row["recipe"] for row in figure.rows if row["width"] is None] == ["digits/C", "digits/E", "digits/G"]  # the fixed average
    assert "epoch 60" in figure.caption
    assert "40" not in figure.caption.split(".")[1]


def test_the_page_says_which_width_is_best_and_how_exact_it_is(swept: Fake) -> None:
    page = render(swept.report())
    assert "By the width of the average" in page
    assert "0.075" in page
    assert "at an end of the sweep" in page
    assert "0.10%" in page


def test_averages_are_mixed_only_where_no_snapshot_has_them(swept: Fake) -> None:
    mixed = {task.subject.ema for task in swept.tasks if task.stage == "ema"}
    assert mixed == {"0.025", "0.075", "0.150"}
    report = swept.report()
    measured = [result for result in report.results.values() if result.task.stage == "metrics"]
    assert {result.task.subject.ema for result in measured} > mixed
    for result in measured:
        below = report.snapshot(result)
        assert below is not None
        assert below.task.stage == "snapshot"
