"""Samplers of the same snapshots by what they cost."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.report.conclusions import conclusions
from edm2core.report.drawings import drawings
from edm2core.report.frontier import Frontier, Point, frontiers
from edm2core.report.frontier_words import FRONTIER, Answer, answers_of
from edm2core.report.html import render
from edm2core.report.overview import as_overview
from edm2core.report.recheck import best_again, rechecks
from edm2core.report.sampled import Measured, change_of
from edm2core.report.write import as_csv, as_json
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake

    from edm2core.plan.tasks import Task

SWEEP = "sweep: {sample.solver: [heun, dpmpp_2m, dpmpp_2m_sde], sample.steps: [6, 18]}\n"
TEXT = {", digits/E, digits/G": "", ", steps: 18": "", "[20, 40, 60]": "[60]"}
VALUES = {"heun 6": 4.2, "heun 18": 4.0, "dpmpp_2m 6": 4.5, "dpmpp_2m 18": 4.04, "dpmpp_2m_sde 6": 6.0, "dpmpp_2m_sde 18": 5.0}
COMMON = [0.05 * math.sin(block) for block in range(10)]  # what each block of the same noise does to every sampler


def facts(task: Task, values: dict[str, float], own: random.Random) -> dict[str, Any] | None:
    """What a stage records of a task in a sweep of samplers."""
    settings = task.subject.sweep.at if task.subject.sweep else {}
    if task.stage == "sample":
        evaluations = settings["sample.steps"] * (2 if settings["sample.solver"] == "heun" else 1)
        return {"drawing": {"images": 2000, "seconds": 0.5 * evaluations, "joules": 30.0 * evaluations}}
    if task.stage == "metrics":
        value = values[f"{settings['sample.solver']} {settings['sample.steps']}"]
        left_out = [value * (1 + common + 0.001 * own.random()) for common in COMMON]
        return {"values": {"fd_digits": value}, "standard_errors": {"fd_digits": 0.2}, "left_out": {"fd_digits": left_out}}
    return None


def done(fake: Fake, values: dict[str, float]) -> Fake:
    own = random.Random(0)
    for task in fake.tasks:
        fake.commit(task, facts(task, values, own))
    return fake


@pytest.fixture
def swept(another: Callable[..., Fake]) -> Fake:
    """One training, sampled by three solvers with two numbers of steps each."""
    return done(another(TEXT, SWEEP, make=False), VALUES)


def one(fake: Fake) -> Frontier:
    return next(frontier for frontier in frontiers(fake.report()) if frontier.metric == "fd_digits")


def point(name: str, evaluations: int, *values: float, error: float | None = None) -> Point:
    measured = {seed: Measured(value, error, ((value, ()),), ()) for seed, value in enumerate(values)}
    return Point(name, evaluations, measured, name, evaluations, None, None, "")


def of(*points: Point, metric: str = "fd_digits") -> Frontier:
    return Frontier("digits", "digits/C", 60, "fixed", metric, "", 2000, points)


def test_points_are_samplers_by_evaluations_with_what_they_cost(swept: Fake) -> None:
    frontier = one(swept)
    assert [p.name for p in frontier.points] == ["dpmpp_2m 6", "dpmpp_2m_sde 6", "heun 11", "dpmpp_2m 18", "dpmpp_2m_sde 18", "heun 35"]
    assert (frontier.recipe, frontier.points[0].seconds, frontier.points[0].joules) == ("digits/C", 1.5, 90.0)
    assert "solver swept" in frontier.protocol
    assert [p.name for p in frontier.undominated("evaluations")] == ["dpmpp_2m 6", "heun 11", "dpmpp_2m 18", "heun 35"]
    assert [p.name for p in frontier.undominated("seconds")] == ["dpmpp_2m 6", "heun 11", "dpmpp_2m 18", "heun 35"]


def test_the_cheapest_sampler_that_is_good_enough_is_named(swept: Fake) -> None:
    (words,) = [line for line in conclusions(swept.report()) if "→" in line]
    assert words.startswith(
        "digits/C @ 60 · FD (digits features): heun 35 → dpmpp_2m 18 evaluations: within 2 % of its FD (+1.0 %, 95 % interval +"
    )
    assert words.endswith("% over images). 1,000 images take 4.5 s instead of 9 s.")


def test_common_noise_makes_the_interval_narrower_than_independent_errors_would(swept: Fake) -> None:
    frontier = one(swept)
    assert frontier.picked
    change = frontier.change(frontier.picked)
    assert change
    assert change.interval
    low, high = change.interval
    assert low < change.share < high
    assert high - low < 0.01  # independent errors of 5 % would make it 0.28
    apart = change_of(
        *({0: replaced} for replaced in (m._replace(draws=()) for p in (frontier.careful, frontier.picked) for m in p.by_seed.values()))
    )
    assert apart
    assert apart.interval
    assert apart.interval[1] - apart.interval[0] > 0.2


def test_several_seeds_give_the_interval_over_trainings() -> None:
    change = of(point("dpmpp_2m", 18, 4.1, 4.3, 4.2), point("heun", 35, 4.0, 4.2, 4.1)).change(point("dpmpp_2m", 18, 4.1, 4.3, 4.2))
    assert change
    assert (change.over, change.share) == ("seeds", pytest.approx(0.0244, abs=1e-4))
    assert change.interval
    assert 0.02 < change.interval[0] < change.share < change.interval[1] < 0.03


@pytest.mark.parametrize(
    ("frontier", "words"),
    [
        (of(point("euler", 6, 9.0, error=0.1), point("heun", 35, 4.0, error=0.1)), "No sampler with fewer evaluations comes within 2 % of"),
        (of(point("euler", 6, 4.0, error=0.3), point("heun", 35, 4.0, error=0.3)), "though more than 2 % is not excluded (+0.0 %"),
        (of(point("euler", 6, 3.0, error=0.1), point("heun", 35, 4.0, error=0.1)), "euler 6 evaluations: its FD is better (−25.0 %"),
        (of(point("euler", 6, 4.0), point("heun", 35, 4.0)), "(+0.0 %, without an interval)"),
        (of(point("euler", 6, 3.0), point("heun", 6, 4.0)), "All samplers take 6 evaluations; euler has the best FD."),
        (of(point("euler", 6, -0.1), point("heun", 35, 4.0)), "no sampler is compared with another"),
        (of(point("euler", 6, 0.5), point("heun", 35, 0.8), metric="precision_digits"), "euler 6 has −37.5 %"),
    ],
)
def test_each_outcome_is_said(frontier: Frontier, words: str) -> None:
    assert words in Answer(frontier, latest=True).sentence


def test_the_picked_and_the_careful_sampler_are_drawn_again_and_the_bias_is_told(swept: Fake) -> None:
    again = rechecks(swept.report(), 2)
    drawn = [(task.subject.sweep.at["sample.solver"], task.subject.draw) for task in again if task.stage == "sample" and task.subject.sweep]
    assert drawn == [("heun", 1), ("heun", 2), ("dpmpp_2m", 1), ("dpmpp_2m", 2)]
    own = random.Random(1)
    swept.tasks = [*swept.tasks, *again]
    for task in again:
        swept.commit(task, facts(task, {**VALUES, "dpmpp_2m 18": 4.12}, own))
    report = swept.report()
    answer = next(answer for answer in answers_of(report) if answer.frontier.metric == "fd_digits")
    assert answer.bias == pytest.approx(0.02)
    assert "Both drawn again with other noise: +3.0 %" in answer.sentence
    assert "picking it from 6 had flattered it by 2.0 points" in answer.sentence
    assert len(answer.frontier.points) == 6  # what was drawn again decides nothing
    assert best_again(report) == []  # no epoch was chosen


def test_where_no_sampler_was_picked_none_is_drawn_again(another: Callable[..., Fake]) -> None:
    fake = done(another(TEXT, SWEEP, make=False), {**VALUES, "dpmpp_2m 18": 5.0})
    assert rechecks(fake.report(), 2) == []


def test_page_files_and_tables_have_the_frontier(swept: Fake) -> None:
    report = swept.report()
    figures = drawings(report).frontier
    assert [figure.id for figure in figures] == ["frontier-evaluations-0", "frontier-seconds-0", "frontier-joules-0"]
    assert all(map(valid, figures))
    assert "2 cores" in figures[1].caption
    assert [row["solver"] for row in figures[0].rows if row["best"]] == ["dpmpp_2m", "dpmpp_2m", "heun", "heun"]
    page = render(report)
    assert "What quality costs" in page
    assert "digits/C, sampled in 6 ways on" in page
    lines = list(csv.DictReader(io.StringIO(as_csv(report)["frontiers.csv"])))
    assert list(lines[0]) == list(FRONTIER)
    assert [line["evaluations"] for line in lines if line["picked"] == "True"] == ["18"]
    (found,) = json.loads(as_json(report))["frontiers"]
    assert found["sentence"].startswith("heun 35 → dpmpp_2m 18")
    assert [verdict["kind"] for verdict in json.loads(as_overview(report))["verdicts"] if verdict["headline"]] == ["no_claim", "frontier"]


def test_two_recipes_have_a_frontier_each_and_one_figure_in_which_one_is_shown_at_a_time(another: Callable[..., Fake]) -> None:
    fake = done(another({**TEXT, ", digits/E, digits/G": ", digits/E"}, SWEEP, make=False), VALUES)
    report = fake.report()
    assert sorted(frontier.recipe for frontier in frontiers(report)) == ["digits/C", "digits/E"]
    assert list(drawings(report).frontier[0].choices["training"]) == ["digits/C", "digits/E"]
    assert len([line for line in conclusions(report) if "→" in line]) == 2


def test_other_swept_settings_tell_frontiers_apart(another: Callable[..., Fake]) -> None:
    fake = done(another(TEXT, SWEEP.replace("}", ", training.lr: [1e-2, 5e-3]}"), make=False), VALUES)
    assert sorted(frontier.recipe for frontier in frontiers(fake.report())) == ["digits/C lr=0.005", "digits/C lr=0.01"]


def test_noise_levels_are_part_of_a_samplers_name(another: Callable[..., Fake]) -> None:
    sweep = "sweep: {sample.solver: [heun, euler], sample.schedule: [karras, [80, 5, 0.1]]}\n"
    (frontier, *_) = frontiers(another(TEXT, sweep).report())
    assert [p.name for p in frontier.points][:2] == ["euler schedule=80, 5, 0.1 3", "heun schedule=80, 5, 0.1 5"]


def test_without_swept_samplers_there_is_none(demo: Fake) -> None:
    report = demo.report()
    assert (frontiers(report), drawings(report).frontier) == ([], [])
    assert "What quality costs" not in render(report)


def test_seconds_of_an_earlier_version_that_recorded_none_are_left_out(another: Callable[..., Fake]) -> None:
    report = another(TEXT, SWEEP).report()
    assert [figure.id for figure in drawings(report).frontier] == ["frontier-evaluations-0"]
