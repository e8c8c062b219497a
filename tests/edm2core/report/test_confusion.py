"""Which classes a probe takes for which, as a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from plotly import graph_objects as go

from edm2core.report import confusion
from edm2core.report.collect import confusion_of
from edm2core.report.confusion import confusion_figures
from edm2core.report.figures import Styles

if TYPE_CHECKING:
    from conftest import Fake


def test_every_snapshots_matrix_is_there_and_the_last_of_the_first_training_is_shown(demo: Fake) -> None:
    report = demo.report()
    (figure,) = confusion_figures(report, Styles.of(report))
    go.Figure(figure.plot)
    traces = figure.plot["data"]
    assert [(trace["meta"]["variant"], trace["meta"]["epoch"]) for trace in traces] == [
        (f"digits/{letter}", epoch) for letter in "CEG" for epoch in (20, 40, 60)
    ]
    assert [trace["meta"] for trace in traces if trace["visible"]] == [{"epoch": 60, "variant": "digits/C"}]
    assert traces[0]["z"] == [[80.0, 20.0, 0.0], [10.0, 90.0, 0.0], [0.0, 0.0, 100.0]]  # a row is a true class
    assert traces[0]["text"][0] == [8, 2, 0]
    assert traces[0]["x"] == traces[0]["y"] == ["one", "two", "&lt;three&gt;"]  # plotly.js reads tags


def test_of_many_classes_only_the_last_epochs_are_on_the_page(demo: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MOST_CELLS", 9 * 3)
    report = demo.report()
    (figure,) = confusion_figures(report, Styles.of(report))
    assert [(trace["meta"]["variant"], trace["meta"]["epoch"]) for trace in figure.plot["data"]] == [
        (f"digits/{letter}", 60) for letter in "CEG"
    ]


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
    (trace,) = figure.plot["data"]
    assert (trace["z"], trace["text"]) == ([[87.5, 12.5], [12.5, 87.5]], [[3.5, 0.5], [0.5, 3.5]])
    assert trace["x"] == ["cat (1)", "cat (2)"]
    assert "Mean over 2 probe seeds." in figure.caption
    report = replace(report, confusions={probe.ref: confusion_of({**summed, "confusion_over_seeds": None})})
    (figure,) = confusion_figures(report, Styles.of(report))
    assert figure.plot["data"][0]["text"] == [[3, 1], [0, 4]]
    assert "Of the first probe seed" in figure.caption
