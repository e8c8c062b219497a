"""The one path of a task, here and on a cluster: return its committed result, or start or adopt its job and follow it to the result."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from components.launcher.spec import Backend, JobSpec, Status, work_ref
from edm2core.errors import EdmError, Interrupted
from edm2core.events import parse
from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store.base import Store
from edm2core.store.leases import holder
from edm2core.store.results import load, verify
from edm2core.store.wanted_epochs import want
from edm2core.worker.exit_codes import BAD_INPUT, FAILED, TRY_AGAIN
from edm2core.worker.faults import GET_MEMORY, lacks_memory

Show = Callable[[Task, dict[str, Any]], None]  # shows an event of a task
RESTARTS = 3  # in a row without a newer state, before the task fails
LOSSES = 12  # the same, where processes were only taken away: preempted, drained, killed
POLL_S = 0.1
NO_LOG = "It printed nothing. Run it again; if it ends so again, ask the machine or the cluster what ended it: its memory, its events."
SHOWN_LINES = 8  # of what a failed job printed
LOOK_S = 2.0  # between two looks at the store for what another process commits
HEAR_S = 10.0  # how much later than the result a job's last lines may arrive: a quick pod commits before its log is read


class TaskFailedError(EdmError):
    """A task's job ended without its result. `lines` are the last that it printed."""

    def __init__(self, task: Task, reason: str, do_next: str, lines: list[str], exit_code: int = FAILED) -> None:
        super().__init__(f"{task.title} failed: {reason}", do_next=do_next)
        self.task, self.lines, self.exit_code = task, lines, exit_code

    @property
    def tail(self) -> str:
        """The job's last lines, indented, to print below what happened."""
        return "".join(f"\n    {line}" for line in self.lines[-SHOWN_LINES:])


def committed(store: Store, task: Task) -> Manifest | None:
    """The task's manifest, if it is in the store; raises EdmError if a file is missing or has another size than recorded."""
    manifest = load(store, task.ref)
    if manifest is None:
        return None
    if problems := verify(store, manifest, contents=False):
        raise EdmError(
            f"{task.title}: its result in the store is damaged: {' '.join(problems)}",
            where=f"{store.uri}/{task.ref.folder}",
            do_next="`edm2 verify STORE --drop` removes damaged results, so that the next run makes them anew.",
        )
    return manifest


def execute(
    task: Task, store: Store, backend: Backend, spec: JobSpec, *, run: str, show: Show, stop: threading.Event
) -> tuple[Manifest, bool]:
    """The task's manifest, and whether it was in the store already.

    `run` is the run that wants the result. `show` gets every structured event of the job, and every other line as an event `line`.
    Raises TaskFailedError, and Interrupted once `stop` is set.
    """
    if manifest := committed(store, task):
        return manifest, True
    if task.stage == "snapshot":
        want(store, trajectory_ref(task), run, task.wanted)
    follower = _Follower(task, store, backend, spec, show, stop)
    while True:
        follower.wait_for_others()
        if not (manifest := committed(store, task)):
            backend.start(spec)
            manifest = follower.follow()
        if manifest:
            return manifest, False


class _Follower:
    """Follows one task's job through its restarts."""

    def __init__(self, task: Task, store: Store, backend: Backend, spec: JobSpec, show: Show, stop: threading.Event) -> None:
        self.task, self.store, self.backend, self.spec, self.show, self.stop = task, store, backend, spec, show, stop
        self.lines = deque[str](maxlen=20 * spec.nodes * spec.processes)  # the last that were no events
        self.failure: dict[str, Any] | None = None  # the event of the process that failed first
        self.restarts, self.losses, self.restart_step = 0, 0, -1  # since the newest state, and that state's step
        self.said = ""  # the last reason to wait or restart

    def wait_for_others(self) -> None:
        """Wait while a process of another job works on the same thing, and say which."""
        while self.backend.poll(self.spec.name).over:
            other = holder(self.store, work_ref(self.task))
            if other is None or not other.alive or load(self.store, self.task.ref) is not None:
                return
            if other.owner.endswith(f"/{self.spec.name}"):
                return  # this job itself, killed before it could release its lease
            self._wait(other.who, f"waiting for {other}")
            self._pause(LOOK_S / 2)

    def follow(self) -> Manifest | None:
        """Follow the job until its result is in the store; None if the job ended before and should be started again."""
        looked, restarts = time.monotonic(), 0
        while True:
            status = self.backend.poll(self.spec.name)
            news = self._read()
            if news or status.over or time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                if manifest := committed(self.store, self.task):
                    self._hear_out(news)
                    return manifest
            if status.over:
                self._read()
                self._over(status)
                return None
            if status.restarts > restarts:
                restarts = status.restarts
                self._again(status, "restarted")
            elif status.reason:
                self._wait(status.reason)
            self._pause(POLL_S)

    def _hear_out(self, committed: bool) -> None:
        """Read until the job has ended or said that the result is committed, for HEAR_S at most: its log may lag behind the store."""
        end = time.monotonic() + HEAR_S
        while not committed and not self.backend.poll(self.spec.name).over and time.monotonic() < end:
            self._pause(POLL_S)
            committed = self._read()
        self._read()

    def _read(self) -> bool:
        """Show what the job printed; True if it says that this task's result is committed."""
        news = False
        for line in self.backend.logs(self.spec.name):
            event = parse(line)
            if event is None:
                self.lines.append(line)
                self.show(self.task, {"kind": "line", "line": line})
                continue
            self.show(self.task, progress_of(self.task, event) if event["kind"] == "progress" else event)
            news = news or (event["kind"] == "commit" and event.get("ref") == str(self.task.ref))
            if event["kind"] == "failed" and (self.failure is None or event.get("time", 0) < self.failure.get("time", 0)):
                self.failure = event
            elif event["kind"] == "restart" and event.get("step", 0) > self.restart_step:
                self.restart_step, self.restarts, self.losses = event["step"], 0, 0
        return news

    def _over(self, status: Status) -> None:
        """Return if the job should be started again; raise why not otherwise."""
        self._pause(0)
        if status.code in (FAILED, BAD_INPUT):
            raise self._failed(status)
        busy = holder(self.store, work_ref(self.task))
        if status.code == TRY_AGAIN and busy is not None and busy.alive:
            return  # wait_for_others says who
        self._again(status, "starting it again")
        self._pause(0 if status.code != TRY_AGAIN else 2.0**self.restarts)

    def _again(self, status: Status, how: str) -> None:
        """Count a restart; raise TaskFailedError after too many from the same state."""
        self.restarts, self.losses = self.restarts + (not status.lost), self.losses + status.lost
        reason = status.reason or "ended without its result"
        if self.restarts > RESTARTS or self.losses > LOSSES:
            self.backend.stop(self.spec.name, 0)
            raise self._failed(status, f"{reason}, {self.restarts + self.losses} times without a newer state")
        self.show(self.task, {"kind": "warning", "message": f"{reason}; {how}"})
        self.said = reason

    def _wait(self, reason: str, message: str = "") -> None:
        """Say once what the task waits for."""
        if self.said != reason:
            self.show(self.task, {"kind": "waiting", "message": message or reason})
            self.said = reason

    def _failed(self, status: Status, reason: str = "") -> TaskFailedError:
        if self.failure is None:
            if signs := [line for line in dict.fromkeys(self.lines) if lacks_memory([line])]:
                return TaskFailedError(self.task, "there was not enough memory", GET_MEMORY, signs)
            return TaskFailedError(self.task, reason or status.reason, "Its log says more." if self.lines else NO_LOG, [*self.lines][-20:])
        what, where, do_next = (self.failure.get(part) or "" for part in ("what", "where", "do_next"))
        said = {line.strip() for line in str(EdmError(what, where=where, do_next=do_next)).splitlines()}  # the stage printed it as well
        lines = [line for line in self.failure.get("lines", self.lines) if line.strip() not in said]
        code = BAD_INPUT if status.code == BAD_INPUT else FAILED
        return TaskFailedError(self.task, f"{what} ({where})" if where else what, do_next, lines, code)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Interrupted("Stopped on request.", do_next="Run it again to go on.")


def progress_of(task: Task, event: dict[str, Any]) -> dict[str, Any]:
    """A progress event of a task's job, as one of this task.

    All snapshots of a training have one job. Its events speak of the next snapshot that somebody wants. Where that is another task's,
    the event's step and pace say how far this task is.
    """
    if task.stage != "snapshot" or event.get("target") in (None, task.settings["epoch"]):
        return event
    epoch, steps = task.settings["epoch"], event["steps_per_epoch"]
    begin = max((wanted for wanted in task.wanted if wanted < epoch), default=0) * steps
    done = min(max(event["step"] - begin, 0), epoch * steps - begin)
    left = max(epoch * steps - event["step"], 0) * event["seconds_per_step"]
    return {**event, "target": epoch, "done": done, "total": epoch * steps - begin, "eta_s": round(left)}
