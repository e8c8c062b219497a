"""What a person sees while a plan runs: a live table on a terminal, else a line now and then."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edm2core.events import numbers, percent
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.words import duration
from pipelines.run.remaining import Remaining
from pipelines.run.task_scheduler import TaskChange

RUN_QUIET_S = 60.0  # without a terminal: the least time between two lines about the whole run
QUIET_S = 10.0  # without a terminal: the least time before a task's first line of progress, and between two of them
SIGNS = {"done": ("✓", "green"), "failed": ("✗", "red"), "interrupted": ("■", "yellow")}


class View:
    """Shows tasks as they start, go on and end."""

    def __init__(self, tasks: Sequence[Task], console: Console, remaining: Remaining) -> None:
        self._console, self._tasks, self._remaining = console, {task.ref for task in tasks}, remaining
        self._lock = threading.Lock()
        self._running: dict[Ref, Task] = {}
        self._events: dict[Ref, dict[str, Any]] = {}
        self._ended: dict[Ref, str] = {}
        self._results: dict[Ref, str] = {}  # what came of a task, in words, until its end is shown
        self._begun = time.monotonic()
        self._said: dict[Ref | None, float] = {None: self._begun}  # when a line about a task, or the run, was last printed
        live = Live(get_renderable=self._table, console=console, refresh_per_second=4, transient=True)
        self.shown: AbstractContextManager[Any] = live if console.is_terminal else nullcontext()  # shows the table while it is entered

    def add(self, tasks: Sequence[Task]) -> None:
        """Show more tasks than the run began with."""
        with self._lock:
            self._tasks |= {task.ref for task in tasks}

    def say(self, message: str | Text) -> None:
        """Print a line above the table."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def made(self, task: Task, manifest: Manifest) -> None:
        """Note that a task's result is in the store. Its numbers are printed when the task ends."""
        with self._lock:
            self._results[task.ref] = manifest.in_words

    def changed(self, task: Task, outcome: TaskChange) -> None:
        """Show that a task has begun or ended."""
        self._remaining.changed(task, outcome)
        with self._lock:
            if outcome.state == "running":
                self._running[task.ref] = task
                self._said[task.ref] = time.monotonic()  # a task that ends soon gets no line of progress
                return
            self._running.pop(task.ref, None)
            event, result = self._events.pop(task.ref, {}), self._results.pop(task.ref, "")
            if outcome.state != "reused" or task.ref not in self._ended:  # `recheck` finds again what this run has done itself
                self._ended[task.ref] = outcome.state
        if outcome.state not in SIGNS:  # reused and skipped tasks get no line of their own; the last line counts them
            return
        words = result or numbers({**event, "eta_s": 0}) if outcome.state == "done" else ""
        took = duration(outcome.seconds) if outcome.seconds else ""
        rest = "".join(f" · {part}" for part in (took, words) if part)
        self.say(Text.assemble(SIGNS[outcome.state], f" {task.title}", (rest, "dim")))
        if outcome.error is not None:
            self.say(Text(f"  {outcome.error.what}", "red"))

    def event(self, task: Task, event: dict[str, Any]) -> None:
        """Show an event that a task's process has printed."""
        if event["kind"] == "progress":
            self._remaining.progress(task, event)
            with self._lock:
                self._events[task.ref] = event
                due = not self._console.is_terminal and self._is_due(task.ref, QUIET_S)
                run_due = due and self._is_due(None, RUN_QUIET_S)
            if due:
                words = numbers(event)
                self.say(f"  {task.title}: {percent(event)}{f' · {words}' if words else ''}")
            if run_due:
                self.say(f"  {self._run()}")
        elif event["kind"] in ("warning", "waiting", "busy", "restart", "compiled"):
            message = event.get("message") or f"resumes from the state at step {event.get('step')}"
            self.say(f"  {task.title}: {message}")

    def _is_due(self, ref: Ref | None, quiet_s: float) -> bool:
        """Whether to print a line about a task, or the run, after so much silence; if so, it counts as printed."""
        now = time.monotonic()
        due = now - self._said.get(ref, 0.0) >= quiet_s
        self._said |= {ref: now} if due else {}
        return due

    def _run(self) -> str:
        """How far the run is, and how long it still takes if that is known."""
        left = self._remaining.left()
        words = f" · {'more than' if left.least else 'about'} {duration(left.seconds)} left" if left and left.seconds >= 1 else ""
        return f"{self.summary()}{words}"

    def summary(self) -> str:
        """How many tasks ended how, and how long it all took: 28 of 28 tasks ended (20 done, 8 reused) · 2 min 05 s."""
        with self._lock:
            states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(self._ended.values()).items()))
            ended, total = len(self._ended), len(self._tasks)
        return f"{ended} of {total} tasks ended{f' ({states})' if states else ''} · {duration(time.monotonic() - self._begun)}"

    def _table(self) -> Group:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            for ref, task in self._running.items():
                event = self._events.get(ref, {"done": 0, "total": 1})
                table.add_row(Text(task.title), *_bar(event["done"], event["total"]), Text(numbers(event), style="dim"))
        whole = Table.grid(padding=(0, 2))
        left, spent = self._remaining.left(), time.monotonic() - self._begun
        # The bar goes by time only if the times of all tasks are known: an unknown time would count as nothing.
        done, total = (spent, spent + left.seconds) if left and not left.least else (len(self._ended), len(self._tasks))
        whole.add_row(*_bar(done, total), Text(self._run(), style="bold"))
        return Group(whole, table)


def _bar(done: float, total: float) -> tuple[ProgressBar, Text]:
    """How far something is, drawn and in percent."""
    total = max(total, 1e-9)
    return ProgressBar(total, done, width=24), Text(f"{done / total:4.0%}")
