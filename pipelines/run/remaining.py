"""How long a run still takes: the scheduler's order is simulated with the times that this run has measured."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task
from pipelines.estimate import Estimate
from pipelines.run.task_scheduler import TaskChange, time_left

EVERY_S = 2.0  # how long an answer is used again


@dataclass(frozen=True)
class Left:
    """How many seconds are left. With `least` it may be more, since the run has not measured yet how long some tasks take."""

    seconds: float
    least: bool


class Remaining:
    """Says how long the rest of a run takes. It has to be told how the run's tasks go."""

    def __init__(self, tasks: Iterable[Task], costs: Mapping[Ref, Estimate], slots: int) -> None:
        self._tasks, self._costs, self._slots = list(tasks), dict(costs), slots
        self._lock = threading.Lock()
        self._ended: set[Ref] = set()
        self._running: dict[Ref, float] = {}  # when each task began
        self._says: dict[Ref, tuple[float, float]] = {}  # when a task last said how long it still takes, and how long
        self._took: dict[str, dict[Ref, float]] = {}  # stage → task → the seconds that it took
        self._known: tuple[float, Left | None] = (float("-inf"), None)  # the last answer and its time

    def add(self, tasks: Iterable[Task], costs: Mapping[Ref, Estimate]) -> None:
        """Count more tasks than the run began with."""
        with self._lock:
            self._tasks += tasks
            self._costs |= costs

    def changed(self, task: Task, outcome: TaskChange) -> None:
        """Note that a task has begun or ended."""
        with self._lock:
            if outcome.state == "running":
                self._running[task.ref] = time.monotonic()
                self._ended.discard(task.ref)
                return
            self._running.pop(task.ref, None)
            self._says.pop(task.ref, None)
            self._ended.add(task.ref)
            measured = self._took.setdefault(task.stage, {})
            if task.stage != "snapshot":
                measured.pop(task.ref, None)  # what is known so far was only expected
            # A snapshot's time says little: its training may have been ahead of it.
            if outcome.state == "done" and (task.stage != "snapshot" or not measured):
                measured.setdefault(task.ref, outcome.seconds)

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        """Note how far a task says it is."""
        with self._lock:
            now, measured = time.monotonic(), self._took.setdefault(task.stage, {})
            if event.get("eta_s") is not None:
                self._says[task.ref] = now, float(event["eta_s"])
            if event.get("seconds_per_step"):
                measured[task.ref] = event["seconds_per_step"] * event["total"]
            elif event.get("eta_s") is not None and task.stage != "snapshot" and task.ref in self._running:
                measured[task.ref] = now - self._running[task.ref] + float(event["eta_s"])

    def left(self) -> Left | None:
        """What is left; None if nothing is left, or nothing is measured yet."""
        with self._lock:
            if time.monotonic() - self._known[0] > EVERY_S:
                self._known = time.monotonic(), self._compute()
            return self._known[1]

    def _compute(self) -> Left | None:
        waiting = [task for task in self._tasks if task.ref not in self._ended]
        if not waiting or not any(self._took.values()):
            return None
        now, whole = time.monotonic(), {task.ref: self._seconds(task) for task in waiting}
        running = {ref: self._rest(ref, whole.get(ref), now) for ref in self._running}
        seconds = time_left(self._tasks, self._ended, running, {ref: took or 0.0 for ref, took in whole.items()}, self._slots)
        return Left(seconds, any(took is None and ref not in self._says for ref, took in whole.items()))

    def _rest(self, ref: Ref, whole: float | None, now: float) -> float:
        """Seconds that a running task still takes: what it said itself, else what tasks like it took."""
        when, left = self._says.get(ref, (self._running[ref], whole or 0.0))
        return max(left - (now - when), 0.0)

    def _seconds(self, task: Task) -> float | None:
        """How long a task takes, if tasks of a stage take times in proportion to their operations; None if that is not known."""
        measured = self._took.get(task.stage)
        if not measured:
            return None
        took, own = sum(measured.values()), self._operations(task.ref)
        operations = sum(self._operations(ref) for ref in measured)
        return own * took / operations if own and operations else took / len(measured)

    def _operations(self, ref: Ref) -> float:
        return self._costs.get(ref, Estimate()).flops or 0.0
