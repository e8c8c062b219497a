"""How long a run still takes, by what it has measured itself."""

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.plan.manifest import Ref
from pipelines.estimate import Estimate
from pipelines.run.remaining import Remaining
from pipelines.run.task_scheduler import TaskChange, run_tasks, time_left
from tests.pipelines.run.test_task_scheduler import ignore, task


@pytest.fixture(autouse=True)
def one_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.run.task_scheduler.trajectory_ref", lambda one: Ref("trajectory", one.key[0]))
    monkeypatch.setattr("pipelines.run.remaining.EVERY_S", -1.0)


def test_the_time_left_is_the_longest_chain_with_enough_slots_and_the_sum_with_one() -> None:
    tasks = [task("a"), task("b", "sample/a"), task("c"), task("d", "sample/b", "sample/c", stage="snapshot")]
    seconds = {one.ref: number for one, number in zip(tasks, (1.0, 2.0, 4.0, 8.0), strict=True)}
    assert time_left(tasks, set(), {}, seconds, 4) == 12.0
    trainings = [task(name, stage="snapshot") for name in "abc"]
    assert time_left(trainings, set(), {}, dict.fromkeys((one.ref for one in trainings), 5.0), 1) == 15.0


@given(st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=12), st.integers(1, 3), st.integers(0, 11))
@settings(deadline=None, max_examples=60)
def test_what_is_left_lies_between_the_longest_chain_and_all_one_after_the_other(edges: list[list[int]], slots: int, ended: int) -> None:
    tasks = [task(str(i), *{f"sample/{j % i}" for j in edge if i}) for i, edge in enumerate(edges)]
    seconds = {one.ref: 1.0 + int(one.key) % 3 for one in tasks}
    done = {one.ref for one in tasks[:ended]}
    chain: dict[Ref, float] = {}
    for one in tasks:
        chain[one.ref] = 0.0 if one.ref in done else seconds[one.ref] + max((chain[ref] for ref in one.needs), default=0.0)
    left = time_left(tasks, done, {}, seconds, slots)
    assert max(chain.values()) <= left <= sum(seconds[one.ref] for one in tasks if one.ref not in done)


def test_the_order_is_the_schedulers() -> None:
    """Of two that are ready the one with the longer chain behind it goes first: 1 + 5 beside 4, not 4 and then 1 + 5."""
    tasks = [task("a", stage="snapshot"), task("b", stage="snapshot"), task("b2", "snapshot/b", stage="snapshot")]
    begun: list[str] = []
    run_tasks(tasks, lambda one: bool(begun.append(one.key)), 1, threading.Event(), ignore)
    assert begun == ["b", "b2", "a"]
    seconds = {one.ref: number for one, number in zip(tasks, (4.0, 1.0, 5.0), strict=True)}
    assert time_left(tasks, set(), {}, seconds, 1) == 10.0


def test_the_time_left_is_unknown_before_a_measurement_and_a_lower_bound_while_a_stage_is_unmeasured() -> None:
    tasks = [task("a", stage="snapshot"), task("a2", "snapshot/a", stage="snapshot"), task("m", "snapshot/a2", stage="metrics")]
    remaining = Remaining(tasks, {one.ref: Estimate(flops) for one, flops in zip(tasks, (10.0, 30.0, 7.0), strict=True)}, 1)
    assert remaining.left() is None
    remaining.changed(tasks[0], TaskChange("running"))
    remaining.progress(tasks[0], said(eta_s=50, seconds_per_step=1.0, total=100))
    left = remaining.left()
    assert left is not None
    assert left.least
    assert left.seconds == pytest.approx(50 + 300, abs=1.0)  # three times the operations of the first, at its speed


def test_a_measured_stage_takes_as_long_as_its_like_by_operations() -> None:
    tasks = [task("a", stage="metrics"), task("b", stage="metrics"), task("c", stage="metrics")]
    remaining = Remaining(tasks, {one.ref: Estimate(flops) for one, flops in zip(tasks, (10.0, 30.0, 20.0), strict=True)}, 1)
    remaining.changed(tasks[0], TaskChange("done", None, 4.0))
    left = remaining.left()
    assert left is not None
    assert not left.least
    assert left.seconds == pytest.approx(12.0 + 8.0, abs=0.5)


def test_a_running_task_that_says_how_long_it_still_takes_is_measured_until_it_has_ended() -> None:
    tasks = [task("a", stage="probe"), task("b", stage="probe"), task("c", "probe/a", stage="probe")]
    remaining = Remaining(tasks, {one.ref: Estimate(flops) for one, flops in zip(tasks, (10.0, 0.1, 20.0), strict=True)}, 2)
    remaining.changed(tasks[1], TaskChange("done", None, 4.0))  # so small that its start was most of it
    remaining.changed(tasks[0], TaskChange("running"))
    remaining.progress(tasks[0], said(eta_s=16))
    left = remaining.left()
    assert left is not None
    assert not left.least
    assert left.seconds == pytest.approx(16 + (4 + 16) / 10.1 * 20, abs=0.5)
    remaining.changed(tasks[0], TaskChange("done", None, 6.0))
    left = remaining.left()
    assert left is not None
    assert left.seconds == pytest.approx((4 + 6) / 10.1 * 20, abs=0.5)


def test_a_running_task_that_failed_measures_nothing() -> None:
    tasks = [task("a", stage="probe"), task("b", stage="probe")]
    remaining = Remaining(tasks, {}, 2)
    remaining.changed(tasks[0], TaskChange("running"))
    remaining.progress(tasks[0], said(eta_s=16))
    remaining.changed(tasks[0], TaskChange("failed", None, 1.0))
    assert remaining.left() is None


def test_nothing_is_left_when_all_have_ended() -> None:
    tasks = [task("a")]
    remaining = Remaining(tasks, {}, 1)
    remaining.changed(tasks[0], TaskChange("done", None, 4.0))
    assert remaining.left() is None


def said(**numbers: Any) -> dict[str, Any]:
    return {"kind": "progress", "time": time.time(), "done": 50, **numbers}
