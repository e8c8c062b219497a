"""Runs. Each has a folder of the store, with its experiment, its plan, its events and logs, and its report."""

import difflib
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edm2core.addresses import redacted
from edm2core.errors import EdmError, InputError, IntegrityError, MissingError, StoreError
from edm2core.events import emit
from edm2core.plan.experiment import Experiment
from edm2core.plan.keys import key_of
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store import find_store, split_address
from edm2core.store.appended import record_appended
from edm2core.store.base import Flaw, Store, each, is_local
from edm2core.store.leases import GC, holder
from edm2core.store.local import LocalStore
from edm2core.store.plans import MEND_PLAN, plan_path, read_plan, write_plan
from edm2core.store.sealed import sealed, unseal_lines
from edm2core.store.summary import change, records_of, summarise, summary_path, write

SHARE_S = 15.0  # the least time between two uploads of the files that a run writes locally
WAIT_S = 0.5  # the time between two checks whether a gc has ended
LISTED = 20  # the most runs that a message names
NOTES = "notes.md"  # in a run's folder: the user's notes, which edm2 does not change by itself


@dataclass(frozen=True)
class Run:
    """An experiment in a store. However often the same experiment is started in the same store, it is the same run."""

    id: str
    store: Store

    @property
    def folder(self) -> str:
        return f"runs/{self.id}"

    def log_path(self, task: Task) -> Path:
        """The local file for a task's output. A local store holds it; to a remote store it is uploaded while the run goes on."""
        name = f"{self._started}-0.log" if self._remote else "0.log"  # an upload must not replace an earlier process's log
        return self._local / "logs" / f"{task.stage}-{task.key}" / name

    def log(self, event: dict[str, Any]) -> None:
        """Add an event to this process's file of events, with the current time if it has none."""
        path = self._local / "events" / f"{self._started}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            text = redacted(json.dumps({"time": round(time.time(), 3), **event}, default=str))
            file.write(sealed(json.loads(text), None).decode() + "\n")
        self.share()

    def log_of(self, task: Task, event: dict[str, Any]) -> None:
        """Add an event of a task."""
        self.log({**event, "task": str(task.ref), "title": task.title})

    def events(self) -> tuple[list[dict[str, Any]], list[Flaw]]:
        """The events of all processes, in the order of their starts, and the files with damaged lines, which are left out."""
        events: list[dict[str, Any]] = []
        flaws: list[Flaw] = []
        for entry in self.store.list(f"{self.folder}/events/"):
            try:
                lines = unseal_lines(self.store.read(entry.path))
            except MissingError:
                continue
            except (IntegrityError, StoreError) as error:
                if not error.permanent:
                    raise
                flaws.append(Flaw(entry.path, error.what))
                continue
            events += [values for _, values in lines if values is not None]
            damaged = [number for number, (_, values) in enumerate(lines, 1) if values is None]
            if damaged:
                which = f"line {damaged[0]}" if len(damaged) == 1 else f"{len(damaged)} lines, the first {damaged[0]},"
                flaws.append(Flaw(entry.path, f"{which} cannot be read."))
        return events, flaws

    def share(self) -> None:
        """Upload what was written locally, at most every 15 s. What cannot be uploaded now is tried again later."""
        if self._remote and time.monotonic() - self._shared["at"] > SHARE_S and self._lock.acquire(blocking=False):
            try:
                self._shared["at"] = time.monotonic()
                with suppress(EdmError):
                    self._upload()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Upload what was written locally since the last time."""
        if self._remote:
            with self._lock:
                self._upload()

    def end(self) -> None:
        """Record that work on this run has ended, and the digests of the files that were appended to."""
        record_appended(self.store, self.id)
        change(self.store, self.id, ended=time.time())

    def _upload(self) -> None:
        for path in sorted(p for p in self._local.rglob("*") if p.is_file()):
            name, size = path.relative_to(self._local).as_posix(), path.stat().st_size
            if self._shared.get(name) != size:
                self.store.write(f"{self.folder}/{name}", path.read_bytes())
                self._shared[name] = size

    @property
    def _remote(self) -> bool:
        return not is_local(self.store)

    @property
    def _local(self) -> Path:
        if isinstance(self.store, LocalStore):
            self.store.must_be_there()
            return self.store.root / self.folder
        return self._apart

    @cached_property
    def _apart(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="edm2-run-"))

    _started: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}")
    _shared: dict[str, float] = field(default_factory=lambda: {"at": time.monotonic()})  # uploaded sizes; `at` is the last upload's time
    _lock: threading.Lock = field(default_factory=threading.Lock)


def _emit_waiting(message: str) -> None:
    emit("waiting", message=message)


def _wait_for_gc(store: Store, say: Callable[[str], None]) -> None:
    said = False
    while (other := holder(store, GC)) is not None and other.alive:
        if not said:
            say(f"waiting until `edm2 gc` has removed what no run needed: {other}")
            said = True
        time.sleep(WAIT_S)


def open_run(
    store: Store, experiment: Experiment, tasks: Plan, absent: Mapping[str, str], say: Callable[[str], None] = _emit_waiting
) -> Run:
    """The run of this experiment, recorded in the store as by `record`."""
    run = Run(run_id(experiment, tasks), store)
    record(run, experiment.name, experiment.text, tasks, absent, say)
    return run


def record(
    run: Run, name: str, experiment: str, tasks: Sequence[Task], absent: Mapping[str, str], say: Callable[[str], None] = _emit_waiting
) -> None:
    """Write a run's experiment, plan and summary into its folder; `absent` are the metrics that the plan leaves out, and why.

    Once it returns, nothing that the plan needs is removed. It waits for an `edm2 gc --apply` that has begun before, and tells `say` so.
    """
    text = redacted(experiment).encode()
    run.store.write(f"{run.folder}/experiment.yaml", text)
    files = {"experiment.yaml": text, "plan.json": write_plan(run.store, run.id, name, tasks, absent)}
    write(run.store, summarise(run.id, name, tasks, time.time(), files))
    _wait_for_gc(run.store, say)


def add_tasks(run: Run, name: str, tasks: Sequence[Task], absent: Mapping[str, str], say: Callable[[str], None] = _emit_waiting) -> None:
    """Write the plan of a run that goes on, with the tasks that were added to it. The rest of the run's record stays, such as its start.

    Once it returns, what the plan needs is safe, as with `record`.
    """
    plan = write_plan(run.store, run.id, name, tasks, absent)
    change(run.store, run.id, tasks=len(tasks), files=records_of({"plan.json": plan}))
    _wait_for_gc(run.store, say)


def run_id(experiment: Experiment, tasks: Sequence[Task]) -> str:
    """The experiment's name and a hash of its plan."""
    return f"{experiment.name}-{key_of('run', 1, {}, {str(t.ref): '' for t in tasks})[:6]}"


def find_run(address: str, store: str) -> Run:
    """The run at an address: an id in `store`, or a store's address followed by /runs/ID.

    Raises InputError if there is no store, or no such run in it.
    """
    uri, name = split_address(address.removesuffix("/report.html"), "runs", store)
    run = Run(name, find_store(uri))
    _must_exist(run)
    return run


def load_plan(store: Store, run: str) -> tuple[str, Plan]:
    """The name and the plan of a recorded run.

    Raises InputError, naming the runs that there are, if there is no such run; IntegrityError if its plan cannot be read.
    """
    _must_exist(Run(run, store))
    try:
        recorded = read_plan(store, run)
    except MissingError as error:
        raise IntegrityError(f"The plan of {run} is missing.", where=error.where, do_next=MEND_PLAN) from None
    return recorded.name, recorded.plan


def load_absent(run: Run) -> dict[str, str]:
    """Why a recorded run left out metrics, by their names in results."""
    try:
        return read_plan(run.store, run.id).absent
    except MissingError:
        return {}


def list_runs(store: Store) -> list[str]:
    """The ids of all runs in a store, also of those whose plan is lost."""
    folders = store.folders("runs/")
    return [name for name, is_run in zip(folders, each(store, lambda name: _is_run(store, name), folders), strict=True) if is_run]


def _is_run(store: Store, name: str) -> bool:
    return any(store.stat(path) for path in (plan_path(name), summary_path(name)))


def _must_exist(run: Run) -> None:
    if "/" not in run.id and run.id not in ("", ".", "..") and _is_run(run.store, run.id):
        return
    runs = list_runs(run.store)
    called = {part: name for name in runs for part in (name, name.rpartition("-")[0])}  # with its hash at the end, and without
    near = [name for name in runs if run.id and name.startswith(run.id)]
    near = near or [called[close] for close in difflib.get_close_matches(run.id, called, n=3)]
    hint = f"Did you mean {' or '.join(dict.fromkeys(near[:3]))}? " if near else ""
    there = f"{hint}Runs there: {', '.join(runs[:LISTED]) or 'none'}{f' and {len(runs) - LISTED} more' if len(runs) > LISTED else ''}."
    raise InputError(f"There is no run {run.id} in {run.store.uri}.", where=plan_path(run.id), do_next=there)
