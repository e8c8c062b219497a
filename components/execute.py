"""The one path a task takes, here and on a cluster: committed? → done; else start or adopt its job, follow it, verify the manifest."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from components.launcher.spec import Backend, JobSpec, Status, work_ref
from components.progress import progress_of
from edm2core.errors import EdmError, Interrupted
from edm2core.events import parse
from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store.base import Store
from edm2core.store.leases import holder
from edm2core.store.results import load, verify
from edm2core.store.wanted import want
from edm2core.worker.exit_codes import BAD_INPUT, FAILED, TRY_AGAIN
from edm2core.worker.faults import GET_MEMORY, lacks_memory

RESTARTS = 3  # in a row, without a newer state
LOSSES = 12  # the same, if all that is known is that processes were taken away: preempted, drained, killed
POLL_S = 0.1
NO_LOG = "It printed nothing. Run it again; if it ends so again, ask the machine or the cluster what ended it: its memory, its events."
SHOWN_LINES = 8  # of what a failed job printed
LOOK_S = 2.0  # between two looks at the store for what another process commits
HEAR_S = 10.0  # that a result's own lines may come after it: a pod that is quick has committed before its log is read


class TaskFailedError(EdmError):
    """A task's job ended without its result; `lines` are the last it printed."""

    def __init__(self, task: Task, reason: str, do_next: str, lines: list[str], exit_code: int = FAILED) -> None:
        super().__init__(f"{task.title} failed: {reason}", do_next=do_next)
        self.task, self.reason, self.lines = task, reason, lines
        self.exit_code = exit_code

    @property
    def tail(self) -> str:
        """The end of what the job printed, a line each, to stand below what happened."""
        return "".join(f"\n    {line}" for line in self.lines[-SHOWN_LINES:])


def committed(store: Store, task: Task) -> Manifest | None:
    """The task's manifest if it is in the store with all its files at their recorded size."""
    manifest = load(store, task.ref)
    if manifest is None:
        return None
    problems = verify(store, manifest, contents=False)
    if problems:
        raise EdmError(
            f"{task.title}: its result in the store is damaged: {' '.join(problems)}",
            where=f"{store.uri}/{task.ref.folder}",
            do_next="`edm2 verify STORE --drop` removes damaged results, so that the next run makes them anew.",
        )
    return manifest


def execute(
    task: Task,
    store: Store,
    backend: Backend,
    spec: JobSpec,
    *,
    run: str,
    show: Callable[[Task, dict[str, Any]], None],
    stop: threading.Event,
) -> tuple[Manifest, bool]:
    """The task's manifest, and whether it was in the store already.

    `show` gets every structured event and, as kind `line`, every other line of the job; `run` names the run that wants the result.
    Raises TaskFailedError, or Interrupted once `stop` is set.
    """
    manifest = committed(store, task)
    if manifest is not None:
        return manifest, True
    if task.stage == "snapshot":
        want(store, trajectory_ref(task), run, task.wanted)
    follower = _Follower(task, store, backend, spec, show, stop)
    while True:
        follower.wait_for_others()
        manifest = committed(store, task)
        if manifest is None:
            backend.start(spec)
            manifest = follower.follow()
        if manifest is not None:
            return manifest, False


class _Follower:
    """Follows one task's job through its restarts."""

    def __init__(
        self, task: Task, store: Store, backend: Backend, spec: JobSpec, show: Callable[[Task, dict[str, Any]], None], stop: threading.Event
    ) -> None:
        self.task, self.store, self.backend, self.spec, self.show, self.stop = task, store, backend, spec, show, stop
        self.lines: dict[str, deque[str]] = {}  # the last ones of each rank
        self.failure: dict[str, Any] | None = None  # of the rank that failed first
        self.restarts, self.losses, self.restart_step = 0, 0, -1
        self.place_restarts, self.said = 0, ""

    def wait_for_others(self) -> None:
        """Wait while another process works on the same thing, saying who."""
        while self.backend.poll(self.spec.name).over:
            other = holder(self.store, work_ref(self.task))
            if other is None or not other.alive or load(self.store, self.task.ref) is not None:
                return
            if other.owner.endswith(f"/{self.spec.name}"):
                return  # this very job, which was stopped without being able to say so
            self._wait(other.who, f"waiting for {other}")
            self._pause(LOOK_S / 2)

    def follow(self) -> Manifest | None:
        """Read the job's output until the result is there, or the job has ended and should be started again (None)."""
        looked, self.place_restarts = time.monotonic(), 0
        while True:
            status = self.backend.poll(self.spec.name)
            news = self._read()
            if news or status.over or time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                manifest = committed(self.store, self.task)
                if manifest is not None:
                    self._hear_out(news)
                    return manifest
            if status.over:
                self._read()
                self._over(status)
                return None
            if status.restarts > self.place_restarts:
                self.place_restarts = status.restarts
                self._again(status, "restarted")
            elif status.reason:
                self._wait(status.reason)
            self._pause(POLL_S)

    def _hear_out(self, heard: bool) -> None:
        """Read on until the job has said that the result is committed or has ended, for a while: its log may lag behind the store."""
        end = time.monotonic() + HEAR_S
        while not heard and not self.backend.poll(self.spec.name).over and time.monotonic() < end:
            self._pause(POLL_S)
            heard = self._read()
        self._read()

    def _read(self) -> bool:
        """Pass on what the job printed; True if it says that this task's result is committed."""
        news = False
        for line in self.backend.logs(self.spec.name):
            rank, text = _ranked(line)
            event = parse(text)
            if event is None:
                self.lines.setdefault(rank, deque(maxlen=20)).append(line)
                self.show(self.task, {"kind": "line", "line": line})
                continue
            self.show(self.task, progress_of(self.task, event) if event["kind"] == "progress" else event)
            news = news or (event["kind"] == "commit" and event.get("ref") == str(self.task.ref))
            if event["kind"] == "failed" and (self.failure is None or event.get("time", 0) < self.failure.get("time", 0)):
                self.failure = {**event, "rank": rank}
            elif event["kind"] == "restart" and event.get("step", 0) > self.restart_step:
                self.restart_step, self.restarts, self.losses = event["step"], 0, 0
        return news

    def _over(self, status: Status) -> None:
        """Return if the job should be started again, else raise why not."""
        if self.stop.is_set():
            raise Interrupted("Stopped on request.", do_next="Run it again to go on.")
        if status.code in (FAILED, BAD_INPUT):
            raise self._failed(status)
        busy = holder(self.store, work_ref(self.task))
        if status.code == TRY_AGAIN and busy is not None and busy.alive:
            return
        self._again(status, "starting it again")
        self._pause(0 if status.code != TRY_AGAIN else 2.0**self.restarts)

    def _again(self, status: Status, how: str) -> None:
        """Count a restart; raise if there were too many since the last one that had a newer state to start from."""
        self.restarts, self.losses = self.restarts + (not status.lost), self.losses + status.lost
        reason = status.reason or "ended without its result"
        if self.restarts > RESTARTS or self.losses > LOSSES:
            self.backend.stop(self.spec.name, 0)
            raise self._failed(status, f"{reason}, {self.restarts + self.losses} times without a newer state")
        self.show(self.task, {"kind": "warning", "message": f"{reason}; {how}"})
        self.said = reason

    def _wait(self, reason: str, message: str = "") -> None:
        """Say what the task waits for, once."""
        if self.said != reason:
            self.show(self.task, {"kind": "waiting", "message": message or reason})
            self.said = reason

    def _failed(self, status: Status, reason: str = "") -> TaskFailedError:
        if self.failure is None:
            every = [line for lines in self.lines.values() for line in lines]
            signs = [line for line in dict.fromkeys(every) if lacks_memory([line])]
            if signs:
                return TaskFailedError(self.task, "there was not enough memory", GET_MEMORY, signs)
            return TaskFailedError(self.task, reason or status.reason, "Its log says more." if every else NO_LOG, every[-20:])
        where = f" ({self.failure['where']})" if self.failure.get("where") else ""
        error = EdmError(self.failure["what"], where=self.failure.get("where") or "", do_next=self.failure.get("do_next") or "")
        printed = {line.strip() for line in str(error).splitlines()}  # by the stage, in these very words
        lines = [line for line in self.lines.get(self.failure["rank"], ()) if line.strip() not in printed]
        code = BAD_INPUT if status.code == BAD_INPUT else FAILED
        return TaskFailedError(self.task, f"{self.failure['what']}{where}", self.failure.get("do_next") or "", lines, code)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Interrupted("Stopped on request.", do_next="Run it again to go on.")


def _ranked(line: str) -> tuple[str, str]:
    """The rank that a line is marked with, and the line without the mark."""
    match = re.match(r"\[(rank \d+)\] ", line)
    return (match[1], line[match.end() :]) if match else ("", line)
