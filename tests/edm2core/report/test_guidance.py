"""Guidance of the same snapshots: by weight, guide and interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.report.conclusions import conclusions
from edm2core.report.drawings import drawings
from edm2core.report.guidance import guidance_sweeps
from edm2core.report.html import render
from edm2core.report.recheck import rechecks
from edm2core.report.results import rows
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake

    from edm2core.plan.tasks import Task

SWEEP = """
sweep:
  sample.guidance.weight: [1, 2]
  sample.guidance.guide: [null, {epoch: 20}]
  sample.guidance.interval: [null, [0.2, 5]]
"""
TEXT = {
    ", digits/E, digits/G": "",
    "[20, 40, 60]": "[60]",
    "metrics: [fd]": "metrics: [fd, recall]",
    "{training.epochs: 60}": "{training.epochs: 60, network.classes: 10, training.label_dropout: 0.1}",
}


def facts(task: Task) -> dict[str, Any] | None:
    """What the stage `metrics` records: the best FD is with weight 2 by epoch 20 at some levels, and drawn again it is worse."""
    if task.stage != "metrics" or not task.subject.sweep:
        return None
    weight, guide, interval = task.subject.sweep.at.values()
    value = 5.0 - (weight - 1) * (1 + bool(guide) + bool(interval)) + 0.25 * task.subject.recheck
    return {"values": {"fd_digits": value, "recall_digits": 0.8 - 0.1 * weight}}


@pytest.fixture
def swept(another: Callable[..., Fake]) -> Fake:
    fake = another(TEXT, SWEEP, make=False)
    for task in fake.tasks:
        fake.commit(task, facts(task))
    return fake


def test_each_guide_and_interval_is_a_curve_over_the_weight(swept: Fake) -> None:
    report = swept.report()
    distance, recall = guidance_sweeps(report)
    assert (distance.metric, recall.metric, distance.recipe) == ("fd_digits", "recall_digits", "digits/C")
    assert {point.how for point in distance.points} == {
        f"{guide}, {interval}" for guide in ("classifier-free", "by epoch 20, EMA fixed") for interval in ("all σ", "σ 0.2 to 5")
    }
    assert {(point.evaluations, point.interval) for point in distance.points} == {(70, "all σ"), (45, "σ 0.2 to 5")}
    assert (distance.best.weight, distance.best.how, distance.best.value) == (2, "by epoch 20, EMA fixed, σ 0.2 to 5", 2.0)
    figures = drawings(report).guidance
    assert [figure.title for figure in figures] == [
        "FD (digits features) by guidance's weight",
        "FD (digits features) against recall, by guidance",
        "Recall (digits features) by guidance's weight",
    ]
    for figure in figures:
        assert len(figure.rows) == 8
        assert sum(row["best"] for row in figure.rows) == 1
        assert valid(figure)
    assert not [figure for figure in drawings(report).curves if "probe" not in figure.title.lower()]
    assert not [figure for figure in drawings(report).settings if "guidance" in figure.title]


def test_values_with_different_guidance_share_no_protocol(swept: Fake) -> None:
    assert len({row.protocol for row in rows(swept.report()) if row.metric == "fd_digits"}) == 8


def test_the_best_is_drawn_again_and_its_luck_is_told(swept: Fake) -> None:
    assert "recheck: 2 in the experiment draws it again" in guidance_sweeps(swept.report())[0].sentence
    again = rechecks(swept.report(), 2)
    assert {(task.stage, task.subject.draw) for task in again} == {(stage, draw) for stage in ("sample", "metrics") for draw in (1, 2)}
    swept.tasks = [*swept.tasks, *again]  # type: ignore[assignment]
    for task in again:
        swept.commit(task, facts(task))
    report = swept.report()
    sentence = guidance_sweeps(report)[0].sentence
    assert sentence.startswith(
        "FD (digits features) is best with weight 2, by epoch 20, EMA fixed, σ 0.2 to 5: 2, at 45 network evaluations"
    )
    assert "Drawn again with other noise it has 2.25; picking it from 8 had flattered it by 0.25." in sentence
    assert f"digits/C: {sentence}" in conclusions(report)
    assert not [line for line in conclusions(report)[:-1] if "probe" not in line]  # no verdict of what is not comparable
    page = render(report)
    assert "What guidance does" in page
    assert "had flattered it by 0.25" in page
