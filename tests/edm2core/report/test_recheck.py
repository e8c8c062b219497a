"""The best evaluated again: chosen by what there was, valued by what is fresh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edm2core.plan.tasks import redrawn
from edm2core.report.html import render
from edm2core.report.recheck import best_again, rechecks
from edm2core.report.results import rows
from edm2core.report.summary import tables

if TYPE_CHECKING:
    from conftest import Fake


def _rechecked(fake: Fake, draws: int, value: float) -> Fake:
    """The demo with its best snapshots evaluated again, the first draw giving `value`, each later one 1 more."""
    again = rechecks(fake.report(), draws)
    fake.tasks = [*fake.tasks, *again]
    for task in again:
        fake.commit(task, {"values": {"fd_digits": value + task.subject.draw - 1}} if task.stage == "metrics" else None)
    return fake


def test_a_fresh_draw_is_the_plans_own_draw_of_that_number(another: Callable[..., Fake]) -> None:
    fake = another({"steps: 18": "steps: 18, draws: 2"}, make=False)
    first, second = ([fake.find(stage, recipe="digits/C", draw=draw) for stage in ("sample", "metrics")] for draw in (0, 1))
    again = redrawn(first[0], first[1], 1)
    assert [(task.ref, task.inputs, task.settings) for task in again] == [(task.ref, task.inputs, task.settings) for task in second]


def test_only_each_trainings_best_is_drawn_again_with_draws_that_did_not_choose(another: Callable[..., Fake]) -> None:
    fake = another({"steps: 18": "steps: 18, draws: 2"})
    found = rechecks(fake.report(), 3)
    assert {(task.subject.recipe, task.subject.epoch) for task in found} == {(f"digits/{letter}", 60) for letter in "CEG"}
    assert [task.subject.draw for task in found if task.stage == "sample" and task.subject.recipe == "digits/C"] == [2, 3, 4]
    assert not {task.ref for task in found} & {task.ref for task in fake.tasks}


def test_where_there_is_one_epoch_nothing_was_chosen(another: Callable[..., Fake]) -> None:
    assert rechecks(another({"20, 40, 60": "60"}).report(), 3) == []


def test_what_is_evaluated_again_is_reported_apart_and_changes_no_choice(fake: Fake) -> None:
    before = fake.make().report()
    table = tables(before, rows(before))
    report = _rechecked(fake, 3, 1e-9).report()
    assert list(rows(report)) == list(rows(before))
    assert tables(report, rows(report)) == table
    assert report.plan.recipes == before.plan.recipes
    best = next(best for best in best_again(report) if best.recipe == "digits/G")
    assert (best.epoch, best.among, len(best.again), best.mean, best.deviation) == pytest.approx((60, 3, 3, 1.0, 1.0))
    assert best.value == next(row.value for row in rows(before) if (row.recipe, row.epoch, row.metric) == ("digits/G", 60, "fd_digits"))
    assert "The best snapshots, evaluated again" in render(report)
    assert "The best snapshots, evaluated again" not in render(before)


def test_draws_of_another_epoch_than_the_best_do_not_stand_beside_it(fake: Fake) -> None:
    report = _rechecked(fake.make(), 1, 5.0).report()
    moved = {
        ref: replace(result, task=replace(result.task, subject=replace(result.task.subject, epoch=20)))
        if result.task.subject.recheck
        else result
        for ref, result in report.results.items()
    }
    assert best_again(replace(report, results=moved)) == []
