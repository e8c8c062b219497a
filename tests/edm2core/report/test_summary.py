"""The table: best and last, how many the best was picked from, and what failed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edm2core.plan.plan import recipes_of
from edm2core.plan.tasks import Task
from edm2core.report import Outcome, RunInfo
from edm2core.report.results import rows
from edm2core.report.summary import Cell, Line, Table, least_of_draws, tables

if TYPE_CHECKING:
    from conftest import Fake


def _table(fake: Fake, run: RunInfo | None = None) -> Table:
    report = fake.report(run)
    (table,) = tables(report, rows(report))
    return table


def _line(table: Table, recipe: str) -> Line:
    return next(line for line in table.lines if line.recipe == recipe)


def _cell(line: Line, metric: str) -> Cell:
    return next(cell for column, cell in line.cells.items() if column.metric == metric)


def _values(fake: Fake, recipe: str, **values: float) -> None:
    """Finish everything, one recipe with these distances (e20=…)."""
    _make(fake, [(fake.find("metrics", recipe=recipe, epoch=int(name[1:])), value) for name, value in values.items()])


def _make(fake: Fake, distances: list[tuple[Task, float]]) -> None:
    fake.make(lambda task: task in [chosen for chosen, _ in distances])
    for task, value in distances:
        fake.commit(task, {"values": {"fd_digits": value}})


def test_the_best_is_picked_from_all_epochs_and_the_last_is_not_picked(fake: Fake) -> None:
    _values(fake, "digits/E", e20=9.0, e40=4.0, e60=5.0)
    cell = _cell(_line(_table(fake), "digits/E"), "fd_digits")
    assert (cell.best, cell.last, cell.count, cell.wanted) == ((40, 4.0), (60, 5.0), 3, 3)


def test_a_recipe_is_one_line_over_its_seeds_with_the_decimals_that_their_spread_justifies(another: Callable[..., Fake]) -> None:
    table = _table(another({"seeds: [0]": "seeds: [0, 1, 2]"}))
    assert [(line.recipe, len(line.trainings)) for line in table.recipes] == [(f"digits/{rung}", 3) for rung in "CEG"]
    (column,) = [column for column in table.columns if column.metric == "fd_digits"]
    cell = table.recipes[0].cells[column]
    values = [training.cells[column].last[1] for training in table.recipes[0].trainings]  # type: ignore[index]
    assert cell.last
    assert (cell.last.mean, cell.last.deviation) == pytest.approx((statistics.fmean(values), statistics.stdev(values)))
    assert (cell.last.seeds, cell.last.epochs, table.last(column), table.usual(column)) == (3, (60,), 60, (3, 3, 1))
    assert table.places(column) == 2  # of a deviation of 0.2


def test_more_than_five_metrics_are_in_groups_and_the_first_has_the_first_of_samples_and_of_probes(another: Callable[..., Fake]) -> None:
    text = "[fd, fd_filters, kid, precision, recall, density, coverage]"
    groups = _table(another({"[fd]": text, "[20, 40, 60]": "[20]"})).groups
    assert [column.metric for column in groups[0][:2]] == ["fd_digits", "probe_accuracy"]
    assert [len(group) for group in groups] == [5, 3]
    assert len({column for group in groups for column in group}) == 8


def test_a_failed_last_epoch_shows_as_failed_not_as_an_earlier_value(fake: Fake) -> None:
    bad = fake.find("metrics", recipe="digits/C", epoch=60)
    fake.make(lambda task: task == bad)
    cell = _cell(_line(_table(fake, RunInfo({bad.ref: Outcome("failed")})), "digits/C"), "fd_digits")
    assert (cell.last, cell.state, cell.count, cell.wanted) == (None, "failed", 2, 3)


def test_a_recipe_without_any_value_says_why(fake: Fake) -> None:
    fake.make(lambda task: task.stage == "metrics" and task.subject.recipe == "digits/G")
    cell = _cell(_line(_table(fake), "digits/G"), "fd_digits")
    assert (cell.best, cell.state) == (None, "missing")


def test_draws_are_averaged_and_counted(another: Callable[..., Fake]) -> None:
    fake = another({"steps: 18": "steps: 18, draws: 2"}, make=False)
    _make(fake, [(fake.find("metrics", recipe="digits/C", epoch=20, draw=draw), 2.0 + draw) for draw in (0, 1)])
    cell = _cell(_line(_table(fake), "digits/C"), "fd_digits")
    assert (cell.best, cell.draws, cell.least) == ((20, 2.5), 2, 2.0)
    assert cell.error == pytest.approx(0.25 / math.sqrt(2))


def test_the_smallest_of_draws_stands_only_beside_others_of_as_many(another: Callable[..., Fake], tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("extends: digits/C\nname: digits/two\ntraining: {lr: 1.0e-3}\n")
    fake = another({"steps: 18": "steps: 18, draws: 3", "digits/E, digits/G": "two.yaml", "20, 40, 60": "20"}, make=False)
    missing = fake.find("metrics", recipe="digits/two", draw=2)
    fake.make(lambda task: task == missing)
    found = least_of_draws(_table(fake))
    assert {(draws, line.recipe) for (_, draws), lines in found.items() for line, _ in lines} == {(3, "digits/C"), (2, "digits/two")}


def test_one_draw_has_no_smallest(demo: Fake) -> None:
    assert least_of_draws(_table(demo)) == {}


def test_values_of_different_numbers_of_samples_never_share_a_column(another: Callable[..., Fake], tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("extends: digits/C\nname: digits/few\nsample: {count: 70}\n")
    fake = another({"sample: {count: 2000, steps: 18}\n": "", "digits/E, digits/G": "few.yaml", "20, 40, 60": "20"})
    assert [c.n for c in _table(fake).columns if c.metric == "fd_digits"] == [1000, 70]


def test_each_seed_and_average_has_its_own_line(another: Callable[..., Fake]) -> None:
    fake = another({"seeds: [0]": "seeds: [0, 1]", "steps: 18": 'steps: 18, ema: [fixed, "0.050"]', "20, 40, 60": "20"})
    lines = [line.who for line in _table(fake).lines if line.recipe == "digits/C"]
    assert sorted(lines) == [("digits/C", s, e) for s in (0, 1) for e in ("0.050", "fixed")]


def test_values_of_different_protocols_never_share_a_column(another: Callable[..., Fake], tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("extends: digits/C\nname: digits/few\ndata: {test_share: 0.3}\nsample: {eta: 0.5}\n")
    columns = [c for c in _table(another({"digits/E, digits/G": "few.yaml"})).columns if c.metric == "fd_digits"]
    assert len(columns) == 2


def test_cost_is_that_of_the_latest_snapshot(demo: Fake) -> None:
    line = _line(_table(demo), "digits/C")
    assert (line.parameters, line.images, line.epochs, line.processes) == (301_568, 60 * 1437, 60, 1)
    assert line.seconds == pytest.approx(66)


def test_recipes_put_together_from_the_plan_are_the_experiments(another: Callable[..., Fake]) -> None:
    fake = another({"steps: 18": 'steps: 18, draws: 2, ema: [fixed, "0.050"]', "t: [4]": "t: [3, 4]"}, make=False)
    assert list(recipes_of(fake.tasks).values()) == list(fake.report().plan.recipes.values()) == list(fake.recipes)
