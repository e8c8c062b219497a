import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.errors import EdmError, Interrupted
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task
from pipelines.run.task_scheduler import TaskChange, run_tasks


def task(name: str, *needs: str, stage: str = "sample") -> Task:
    return Task(stage, 1, {}, {need: Ref(need.split("/")[0], need.split("/")[1]) for need in needs}, name, name)


def ignore(_task: Task, _outcome: TaskChange) -> None:
    pass


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=25), st.integers(1, 4), st.sets(st.integers(0, 24), max_size=3)
)
@settings(deadline=None, max_examples=40)
def test_every_task_runs_after_what_it_needs_and_a_failure_stops_only_what_stands_on_it(
    edges: list[list[int]], slots: int, failing: set[int]
) -> None:
    tasks = [task(str(i), *{f"sample/{j % i}" for j in edge if i}) for i, edge in enumerate(edges)]
    done: set[str] = set()

    def work(one: Task) -> bool:
        assert {ref.key for ref in one.needs} <= done
        if int(one.key) in failing:
            raise EdmError("broken")
        done.add(one.key)
        return False

    outcomes = run_tasks(tasks, work, slots, threading.Event(), ignore)
    for one in tasks:
        blocked = any(outcomes[ref].state in ("failed", "skipped") for ref in one.needs)
        expected = "skipped" if blocked else "failed" if int(one.key) in failing else "done"
        assert outcomes[one.ref].state == expected


def test_no_more_run_at_once_than_there_are_slots_and_one_evaluation_beside_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.run.task_scheduler.trajectory_ref", lambda one: one.ref)
    tasks = [task(f"t{i}", stage="snapshot") for i in range(4)] + [task(f"e{i}") for i in range(4)]
    lock, running, seen = threading.Lock(), [0, 0], []
    side_by_side = threading.Barrier(3)

    def work(one: Task) -> bool:
        kind = one.stage == "snapshot"
        with lock:
            running[kind] += 1
            seen.append(tuple(running))
        if one.key in ("t0", "t1", "e0"):
            side_by_side.wait(30)
        with lock:
            running[kind] -= 1
        return False

    outcomes = run_tasks(tasks, work, 2, threading.Event(), ignore)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert max(trainings for _, trainings in seen) == 2
    assert max(sum(both) for both in seen) == 3
    assert (1, 2) in seen


def test_a_trajectory_that_has_begun_goes_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.run.task_scheduler.trajectory_ref", lambda one: Ref("trajectory", one.key[0]))
    tasks = [task("a1", stage="snapshot"), task("b1", stage="snapshot"), task("a2", "snapshot/a1", stage="snapshot")]
    order: list[str] = []
    run_tasks(tasks, lambda one: bool(order.append(one.key)), 1, threading.Event(), ignore)
    assert order == ["a1", "a2", "b1"]


def test_after_a_stop_nothing_new_begins() -> None:
    stop = threading.Event()

    def work(one: Task) -> bool:
        stop.set()
        raise Interrupted("stopped")

    outcomes = run_tasks([task("a"), task("b", "sample/a"), task("c")], work, 1, stop, ignore)
    assert {ref.key: outcome.state for ref, outcome in outcomes.items()} == {"a": "interrupted", "b": "waiting", "c": "waiting"}
