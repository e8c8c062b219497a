"""What a person sees while a plan runs: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edm2core.events import numbers
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.words import duration
from pipelines.run.remaining import Remaining
from pipelines.run.task_scheduler import TaskChange

RUN_QUIET_S = 60.0  # between two lines about the whole run, where there is no terminal
QUIET_S = 10.0  # before a task's first progress line and between two, where there is no terminal
SIGNS = {"done": "[green]✓[/]", "reused": "[dim]=[/]", "failed": "[red]✗[/]", "interrupted": "[yellow]■[/]"}


class View:
    """Shows tasks as they start, go on and end."""

    def __init__(self, tasks: Sequence[Task], console: Console, remaining: Remaining) -> None:
        self._console, self._tasks, self._remaining = console, {task.ref for task in tasks}, remaining
        self._lock = threading.Lock()
        self._running: dict[Ref, Task] = {}
        self._events: dict[Ref, dict[str, Any]] = {}
        self._ended: dict[Ref, str] = {}
        self._said: dict[Ref, float] = {}
        self._found: dict[Ref, str] = {}
        self._begun = self._said_of_run = time.monotonic()
        self._live = (
            Live(get_renderable=self._table, console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def add(self, tasks: Sequence[Task]) -> None:
        """More tasks than it began with."""
        with self._lock:
            self._tasks |= {task.ref for task in tasks}

    def say(self, message: str) -> None:
        """Print a line above the table."""
        self._console.print(escape(message), highlight=False, soft_wrap=True)

    def made(self, task: Task, manifest: Manifest) -> None:
        """A task's result is there: what it found is said when it ends."""
        with self._lock:
            self._found[task.ref] = manifest.in_words

    def changed(self, task: Task, outcome: TaskChange) -> None:
        """A task has begun or ended."""
        self._remaining.changed(task, outcome)
        with self._lock:
            if outcome.state == "running":
                self._running[task.ref] = task
                self._said[task.ref] = time.monotonic()  # one that soon ends says only that
                return
            self._running.pop(task.ref, None)
            event, found = self._events.pop(task.ref, {}), self._found.pop(task.ref, "")
            if outcome.state != "reused":
                self._ended[task.ref] = outcome.state
            else:
                self._ended.setdefault(task.ref, "reused")  # it may have been done for this view before
        if outcome.state in ("reused", "skipped"):  # which the last line counts
            return
        said = found or numbers({**event, "eta_s": 0}) if outcome.state == "done" else ""
        parts = [duration(outcome.seconds)] * bool(outcome.seconds) + [said] * bool(said)
        rest = "".join(f" · {part}" for part in parts)
        self._console.print(f"{SIGNS[outcome.state]} {escape(task.title)}[dim]{escape(rest)}[/]", highlight=False, soft_wrap=True)
        if outcome.error is not None:
            self._console.print(f"  [red]{escape(outcome.error.what)}[/]", highlight=False, soft_wrap=True)

    def event(self, task: Task, event: dict[str, Any]) -> None:
        """A task's process said something."""
        if event["kind"] == "progress":
            self._remaining.progress(task, event)
            with self._lock:
                self._events[task.ref] = event
                due = self._live is None and time.monotonic() - self._said.get(task.ref, 0.0) >= QUIET_S
                if due:
                    self._said[task.ref] = time.monotonic()
            if due:
                said = numbers(event)
                self.say(f"  {task.title}: {event['done'] / max(event['total'], 1):.0%}{f' · {said}' if said else ''}")
                self._say_of_run()
        elif event["kind"] in ("warning", "waiting", "busy", "restart", "compiled"):
            message = event.get("message") or f"resumes from the state at step {event.get('step')}"
            self.say(f"  {task.title}: {message}")

    def _say_of_run(self) -> None:
        """Now and then how far all of it is, where there is no terminal."""
        with self._lock:
            due = time.monotonic() - self._said_of_run >= RUN_QUIET_S
            if due:
                self._said_of_run = time.monotonic()
        if due:
            self.say(f"  {self._run()}")

    def _run(self) -> str:
        """How far the run is, and how long it still takes as far as that is known."""
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
        known = left is not None and not left.least  # else what is unknown would count as nothing
        done, total = (spent, spent + left.seconds) if left and known else (len(self._ended), len(self._tasks))
        whole.add_row(*_bar(done, total), Text(self._run(), style="bold"))
        return Group(whole, table)


def _bar(done: float, total: float) -> tuple[ProgressBar, Text]:
    """How far something is, drawn and in percent."""
    total = max(total, 1e-9)
    return ProgressBar(total, done, width=24), Text(f"{done / total:4.0%}")
