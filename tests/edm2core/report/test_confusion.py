"""Which classes a probe takes for which, as a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edm2core.report import confusion
from edm2core.report.collect import confusion_of
from edm2core.report.confusion import confusion_figures
from edm2core.report.figures import Styles
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake


def test_every_snapshots_matrix_is_there_and_the_last_of_the_first_training_is_shown(demo: Fake) -> None:
    report = demo.report()
    (figure,) = confusion_figures(report, Styles.of(report))
    assert valid(figure)
    assert list(dict.fromkeys((row["training"], row["epoch"]) for row in figure.rows)) == [
        (f"digits/{letter}", epoch) for letter in "CEG" for epoch in (20, 40, 60)
    ]
    assert {(row["training"], row["epoch"]) for row in figure.shown} == {("digits/C", 60)}
    assert [row["share"] for row in figure.shown] == [80.0, 20.0, 0.0, 10.0, 90.0, 0.0, 0.0, 0.0, 100.0]  # true class by true class
    assert [row["images"] for row in figure.shown[:3]] == [8, 2, 0]
    assert [row["predicted"] for row in figure.shown[:3]] == ["one", "two", "<three>"]


def test_a_cells_colour_number_and_bar_are_the_same_quantity(demo: Fake) -> None:
    report = demo.report()
    (figure,) = confusion_figures(report, Styles.of(report))
    cells, numbers = figure.spec["layer"]
    assert cells["encoding"]["color"]["field"] == numbers["encoding"]["text"]["field"] == "share"
    assert "%" in cells["encoding"]["color"]["legend"]["title"]


def test_of_many_classes_only_the_last_epochs_are_on_the_page(demo: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MOST_CELLS", 9 * 3)
    report = demo.report()
    (figure,) = confusion_figures(report, Styles.of(report))
    assert {(row["training"], row["epoch"]) for row in figure.rows} == {(f"digits/{letter}", 60) for letter in "CEG"}


def test_without_a_matrix_there_is_no_figure(demo: Fake) -> None:
    report = demo.report()
    assert confusion_figures(replace(report, confusions={}), Styles.of(report)) == []


def test_counts_are_means_over_the_probes_seeds(another: Callable[..., Fake]) -> None:
    fake = another({"probe: {": "probe: {seeds: [0, 1], "})
    report, probe = fake.report(), fake.find("probe", recipe="digits/C", epoch=60)
    summed = {
        "classes": ["cat", "cat"],
        "confusion": [[3, 1], [0, 4]],
        "confusion_over_seeds": [[7, 1], [1, 7]],
        "settings": {"seeds": [0, 1]},
    }
    report = replace(report, confusions={probe.ref: confusion_of(summed)})
    (figure,) = confusion_figures(report, Styles.of(report))
    assert [(row["share"], row["images"]) for row in figure.rows] == [(87.5, 3.5), (12.5, 0.5), (12.5, 0.5), (87.5, 3.5)]
    assert [row["predicted"] for row in figure.rows[:2]] == ["cat (1)", "cat (2)"]
    assert "Mean over 2 probe seeds." in figure.caption
    report = replace(report, confusions={probe.ref: confusion_of({**summed, "confusion_over_seeds": None})})
    (figure,) = confusion_figures(report, Styles.of(report))
    assert [row["images"] for row in figure.rows] == [3, 1, 0, 4]
    assert "of the first probe seed" in figure.caption
