"""Guidance of the same snapshots: by weight, guide and interval."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.report.conclusions import conclusions
from edm2core.report.drawings import drawings
from edm2core.report.guidance import GuidanceSweep, Point, guidance_sweeps
from edm2core.report.html import render
from edm2core.report.overview import as_overview
from edm2core.report.recheck import rechecks
from edm2core.report.results import rows
from edm2core.report.sampled import Measured
from edm2core.report.write import as_json
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
NO_PROBE = {"probe: {t: [4], blocks: [out_3], epochs: 15, batch: 512, lr: 4.0e-3}": "probe: false"}
TEXT = {
    ", digits/E, digits/G": "",
    "[20, 40, 60]": "[60]",
    "metrics: [fd]": "metrics: [fd, recall]",
    "{training.epochs: 60}": "{training.epochs: 60, network.classes: 10, training.label_dropout: 0.1}",
}
COMMON = [0.05 * math.sin(block) for block in range(10)]  # what each block of the same noise does to all samples


def facts(task: Task) -> dict[str, Any] | None:
    """What the stage `metrics` records: the best FD is with weight 2 by epoch 20 at some levels, and drawn again it is worse."""
    if task.stage != "metrics" or not task.subject.sweep:
        return None
    weight, guide, interval = task.subject.sweep.at.values()
    value = 5.0 - (weight - 1) * (1 + bool(guide) + bool(interval) - 0.25 * task.subject.recheck)
    left_out = [value * (1 + common + 0.001 * math.cos(number * weight)) for number, common in enumerate(COMMON)]
    return {
        "values": {"fd_digits": value, "recall_digits": 0.8 - 0.1 * weight},
        "standard_errors": {"fd_digits": 0.2},
        "left_out": {"fd_digits": left_out},
    }


def done(fake: Fake) -> Fake:
    for task in fake.tasks:
        fake.commit(task, facts(task))
    return fake


@pytest.fixture
def swept(another: Callable[..., Fake]) -> Fake:
    return done(another(TEXT, SWEEP, make=False))


def test_weight_1_is_drawn_once_without_guidance_and_begins_each_curve(swept: Fake) -> None:
    assert len([task for task in swept.tasks if task.stage == "sample"]) == 5
    distance, recall = guidance_sweeps(swept.report())
    assert (distance.metric, recall.metric, distance.recipe) == ("fd_digits", "recall_digits", "digits/C")
    assert {(point.how, point.weight) for point in distance.points} == {("unguided", 1)} | {
        (f"{guide}, {interval}", 2) for guide in ("classifier-free", "by epoch 20, EMA fixed") for interval in ("all σ", "σ 0.2 to 5")
    }
    assert {(point.evaluations, point.interval) for point in distance.points} == {(35, ""), (70, "all σ"), (45, "σ 0.2 to 5")}
    assert [[point.weight for point in points] for points in distance.curves.values()] == [[1, 2]] * 4
    assert (distance.best.weight, distance.best.how, distance.best.value) == (2, "by epoch 20, EMA fixed, σ 0.2 to 5", 2.0)


def test_each_metric_is_drawn_by_weight_and_as_a_map_and_against_recall(swept: Fake) -> None:
    report = swept.report()
    figures = drawings(report).guidance
    assert [figure.title for figure in figures] == [
        "FD (digits features) by guidance's weight",
        "FD (digits features) by weight, guide and noise levels",
        "FD (digits features) against recall, by guidance",
        "Recall (digits features) by guidance's weight",
        "Recall (digits features) by weight, guide and noise levels",
    ]
    for figure in figures:
        assert len(figure.rows) == 8
        assert {(row["guided"], row["weight"]) for row in figure.rows if row["best"]} <= {
            ("by epoch 20, EMA fixed, σ 0.2 to 5", 2),
            *((row["guided"], 1) for row in figure.rows if "Recall" in figure.title),  # the unguided one, in every row
        }
        assert any(row["best"] for row in figure.rows)
        assert valid(figure)
    assert {row["error"] for row in figures[0].rows} == {0.2}
    assert "one standard error of the sampling of images" in figures[0].caption
    assert not [figure for figure in drawings(report).curves if "probe" not in figure.title.lower()]
    assert not [figure for figure in drawings(report).settings if "guidance" in figure.title]


def test_values_with_different_guidance_share_no_protocol(swept: Fake) -> None:
    assert len({row.protocol for row in rows(swept.report()) if row.metric == "fd_digits"}) == 5


def test_common_noise_makes_the_interval_against_no_guidance_narrow(swept: Fake) -> None:
    (distance, _) = guidance_sweeps(swept.report())
    change = distance.change(distance.best)
    assert change
    assert change.share == pytest.approx(-0.6)
    assert change.interval
    low, high = change.interval
    assert low < -0.6 < high
    assert high - low < 0.01  # independent errors of 4 and 10 % would make it 0.17
    assert distance.unguided
    assert distance.change(distance.unguided).share == 0  # type: ignore[union-attr]


def test_the_best_and_the_unguided_are_drawn_again_and_the_luck_of_picking_is_told(swept: Fake) -> None:
    assert "recheck: 2 in the experiment draws it again" in guidance_sweeps(swept.report())[0].sentence
    again = rechecks(swept.report(), 2)
    assert [(task.stage, task.subject.draw) for task in again] == [
        (stage, n) for _ in range(2) for n in (1, 2) for stage in ("sample", "metrics")
    ]
    swept.tasks = [*swept.tasks, *again]  # type: ignore[assignment]
    for task in again:
        swept.commit(task, facts(task))
    report = swept.report()
    distance, recall = guidance_sweeps(report)
    assert distance.sentences[0].startswith(
        "FD is best with weight 2, by epoch 20, EMA fixed, σ 0.2 to 5: 2.00 ± 0.20, against 5.00 ± 0.20 without guidance (−60.0 %"
    )
    assert distance.sentences[1] == "An image takes 45 evaluations of networks instead of 35."
    assert distance.sentences[2].startswith("Both drawn again with other noise: −55.0 %")
    assert distance.sentences[2].endswith("picking it from 5 had flattered it by 5.0 points.")
    assert recall.sentences[0].startswith("Recall is best with no guidance: 0.700. The best guidance, weight 2, ")
    assert recall.sentences[1:] == [
        "Drawn again with other noise it has 0.700; picking it from 5 had not flattered it.",
    ]
    assert f"digits/C @ 60 · FD (digits features): {distance.sentence}" in conclusions(report)
    assert not [line for line in conclusions(report)[:-1] if "probe" not in line]  # no verdict of what is not comparable
    page = render(report)
    assert "What guidance does" in page
    assert "had flattered it by 5.0 points" in page


def test_where_guidance_alone_was_swept_its_sentence_is_the_answer(another: Callable[..., Fake]) -> None:
    report = done(another({**TEXT, **NO_PROBE}, SWEEP, make=False)).report()
    page = render(report)
    assert "No verdict" not in page
    assert "digits/C, sampled in 5 ways on" in page
    assert page.index("FD is best with weight 2") < page.index('id="results"')
    distance, _ = json.loads(as_json(report))["guidance"]
    assert [point["change"] for point in distance["points"]] == pytest.approx([0, -0.4, -0.6, -0.2, -0.4])
    assert [point["best"] for point in distance["points"]] == [False, False, True, False, False]
    (verdict,) = json.loads(as_overview(report))["verdicts"]
    assert (verdict["kind"], verdict["label"], verdict["headline"]) == ("guidance", "digits/C @ 60 · FD (digits features)", True)


def test_a_sweep_may_name_no_guidance_itself_or_leave_it_out(another: Callable[..., Fake]) -> None:
    named = another(TEXT, "sweep: {sample.guidance: [null, {weight: 1.5}, {weight: 2}]}\n").report()
    assert [[point.weight for point in sweep.points] for sweep in guidance_sweeps(named)] == [[1, 1.5, 2]] * 2


def test_without_an_unguided_point_the_best_stands_for_itself(another: Callable[..., Fake]) -> None:
    fake = done(another(TEXT, SWEEP.replace("[1, 2]", "[1.5, 2]"), make=False))
    (distance, _) = guidance_sweeps(fake.report())
    assert (distance.unguided, distance.change(distance.best), distance.again) == (None, None, None)
    assert distance.sentences[:2] == [
        "FD is best with weight 2, by epoch 20, EMA fixed, σ 0.2 to 5: 2.00 ± 0.20.",
        "An image takes 45 evaluations of networks.",
    ]
    assert "against no guidance" not in render(fake.report())


def of(guided: float, unguided: float, error: float = 0.1) -> GuidanceSweep:
    def by_seed(value: float) -> dict[int, Measured]:
        return {0: Measured(value, error, ((value, ()),), ())}

    points = (
        Point("a", 35, by_seed(unguided), 1.0, "", "", {}),
        Point("b", 70, by_seed(guided), 2.0, "classifier-free", "all σ", {}),
    )
    return GuidanceSweep("digits", "digits/C", 60, "fixed", "fd_digits", "", 2000, points)


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (of(3.0, 4.0), "against 4.00 ± 0.10 without guidance (−25.0 %, 95 % interval −30.9 to −18.6 % over images)."),
        (of(3.9, 4.0), "% over images), so no gain is shown."),
        (
            of(5.0, 4.0),
            "FD is best with no guidance: 4.00 ± 0.10. The best guidance, weight 2, classifier-free, all σ, has 5.00 ± 0.10 (+25",
        ),
        (of(-0.1, 4.0), "FD is best with weight 2, classifier-free, all σ: −0.10 ± 0.10, against 4.00 ± 0.10 without guidance."),
    ],
)
def test_each_outcome_is_said(sweep: GuidanceSweep, words: str) -> None:
    assert words in sweep.sentences[0]
