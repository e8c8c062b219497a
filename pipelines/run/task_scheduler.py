"""Runs a plan's tasks side by side, each after what it needs; a failed task stops only what depends on it."""

import heapq
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Literal

from edm2core.errors import EdmError, Interrupted
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, trajectory_ref

State = Literal["waiting", "running", "done", "reused", "failed", "skipped", "interrupted"]


@dataclass(frozen=True)
class TaskChange:
    """How a task ended, or that it has begun."""

    state: State
    error: EdmError | None = None
    seconds: float = 0.0


def run_tasks(
    tasks: Sequence[Task],
    work: Callable[[Task], bool],
    slots: int,
    stop: threading.Event,
    changed: Callable[[Task, TaskChange], None],
) -> dict[Ref, TaskChange]:
    """Do every task by `work`, which returns whether the result was there already; returns how each task ended.

    At most `slots` tasks run at once, and one evaluation more, so that snapshots are evaluated while training goes on. Trajectories that
    have begun go first, then the tasks with the longest chain of tasks behind them. Once `stop` is set, no task begins: those that have not
    begun stay waiting. `changed` is told of every beginning and end.
    """
    by_ref = {task.ref: task for task in tasks}
    sorter: TopologicalSorter[Ref] = TopologicalSorter({task.ref: task.needs for task in tasks})
    sorter.prepare()
    height, outcomes, begun = _heights(tasks), dict[Ref, TaskChange](), set[Ref]()
    ready: list[Task] = []
    running: dict[Future[TaskChange], Task] = {}

    def end(task: Task, outcome: TaskChange) -> None:
        outcomes[task.ref] = outcome
        if outcome.state != "waiting":
            changed(task, outcome)
        sorter.done(task.ref)

    with ThreadPoolExecutor(slots + 1, "task") as pool:
        while sorter.is_active():
            ready += [by_ref[ref] for ref in sorter.get_ready()]
            for task in [t for t in ready if any(outcomes[ref].state in ("failed", "skipped") for ref in t.needs)]:
                ready.remove(task)
                end(task, TaskChange("skipped"))
            if stop.is_set():
                for task in ready:
                    end(task, TaskChange("waiting"))
                ready = []
            for task in _next(ready, list(running.values()), begun, height, slots):
                ready.remove(task)
                changed(task, TaskChange("running"))
                running[pool.submit(_outcome, work, task)] = task
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    end(running.pop(future), future.result())
    return outcomes


def time_left(tasks: Sequence[Task], ended: Set[Ref], running: Mapping[Ref, float], seconds: Mapping[Ref, float], slots: int) -> float:
    """Seconds until the last task ends, if `run_tasks` goes on from here: see `timetable`."""
    return max((end for _, end in timetable(tasks, ended, running, seconds, slots).values()), default=0.0)


def timetable(
    tasks: Sequence[Task], ended: Set[Ref], running: Mapping[Ref, float], seconds: Mapping[Ref, float], slots: int
) -> dict[Ref, tuple[float, float]]:
    """When each task begins and ends, in seconds from now, if `run_tasks` goes on from here. Running tasks begin now.

    `running` holds the seconds that running tasks still take, `seconds` those that each other task will take.
    """
    by_ref = {task.ref: task for task in tasks}
    height, now = _heights(tasks), 0.0
    begun = {trajectory_ref(task) for task in tasks if task.stage == "snapshot" and (task.ref in ended or task.ref in running)}
    waiting = [task for task in tasks if task.ref not in ended and task.ref not in running]
    sorter: TopologicalSorter[Ref] = TopologicalSorter(dict.fromkeys(running, ()))
    for task in waiting:
        sorter.add(task.ref, *(ref for ref in task.needs if ref in by_ref and ref not in ended))
    sorter.prepare()
    ready: list[Task] = []
    ends = [(left, ref) for ref, left in running.items()]
    times = {ref: (0.0, left) for ref, left in running.items()}
    heapq.heapify(ends)
    while sorter.is_active():
        ready += [by_ref[ref] for ref in sorter.get_ready() if ref not in running]
        for task in _next(ready, [by_ref[ref] for _, ref in ends], begun, height, slots):
            ready.remove(task)
            times[task.ref] = now, now + seconds[task.ref]
            heapq.heappush(ends, (times[task.ref][1], task.ref))
        now, ref = heapq.heappop(ends)
        sorter.done(ref)
    return times


def _next(ready: list[Task], running: Sequence[Task], begun: set[Ref], height: Mapping[Ref, int], slots: int) -> list[Task]:
    """The ready tasks that begin now, in their order; their trajectories are added to `begun`."""

    def order(task: Task) -> tuple[bool, int]:
        return not (task.stage == "snapshot" and trajectory_ref(task) in begun), -height[task.ref]

    chosen: list[Task] = []
    for task in sorted(ready, key=order):
        taken = [*running, *chosen]
        one_more = task.stage != "snapshot" and all(other.stage == "snapshot" for other in taken)
        if len(taken) < slots + one_more:
            chosen.append(task)
    begun |= {trajectory_ref(task) for task in chosen if task.stage == "snapshot"}
    return chosen


def _outcome(work: Callable[[Task], bool], task: Task) -> TaskChange:
    begun = time.monotonic()
    try:
        state: State = "reused" if work(task) else "done"
        return TaskChange(state, None, time.monotonic() - begun)
    except Interrupted:
        return TaskChange("interrupted", None, time.monotonic() - begun)
    except EdmError as error:
        return TaskChange("failed", error, time.monotonic() - begun)


def _heights(tasks: Sequence[Task]) -> dict[Ref, int]:
    """The length of the longest chain of tasks that begins with each task; a snapshot counts as ten, any other task as one."""
    users: dict[Ref, list[Task]] = {task.ref: [] for task in tasks}
    for task in tasks:
        for ref in task.needs:
            users[ref].append(task)
    height: dict[Ref, int] = {}
    for task in reversed(tasks):  # a plan lists every task after what it needs
        own = 10 if task.stage == "snapshot" else 1
        height[task.ref] = own + max((height[user.ref] for user in users[task.ref]), default=0)
    return height
