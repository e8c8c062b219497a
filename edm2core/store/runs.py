"""A run's folder in the store: what was asked, what happened, what was found."""

from __future__ import annotations

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
from edm2core.store import find_store
from edm2core.store.appended import record_appended
from edm2core.store.base import Store
from edm2core.store.leases import GC, holder
from edm2core.store.local import LocalStore
from edm2core.store.plans import MEND_PLAN, plan_path, read_plan, write_plan
from edm2core.store.sealed import sealed, unseal
from edm2core.store.summary import change, each, records_of, summarise, summary_path, write

SHARE_S = 15.0  # between two uploads of what a run writes locally
WAIT_S = 0.5  # between two looks whether a gc has ended
LISTED = 20  # runs that a message names at most
NOTES = "notes.md"  # the user's own words about a run, which only the user writes


@dataclass(frozen=True)
class Run:
    """One experiment in one store; the same experiment in the same store is the same run, however often it is started."""

    id: str
    store: Store

    @property
    def folder(self) -> str:
        return f"runs/{self.id}"

    def log_path(self, task: Task, rank: int = 0) -> Path:
        """The local file for a task's output: in the store's own folder if the store is one, else uploaded while the run goes on."""
        name = f"{self._started}-{rank}.log" if self._remote else f"{rank}.log"  # an upload would replace that of an earlier process
        return self._local / "logs" / f"{task.stage}-{task.key}" / name

    def log(self, event: dict[str, Any]) -> None:
        """Add an event to this process's part of the run's record, with its time where it has none."""
        path = self._local / "events" / f"{self._started}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            text = redacted(json.dumps({"time": round(time.time(), 3), **event}, default=str))
            file.write(sealed(json.loads(text), None).decode() + "\n")
        self.share()

    def events(self) -> tuple[list[dict[str, Any]], list[str]]:
        """What was logged, by the processes in the order of their starts; and in words what of it is damaged, which is left out."""
        found: list[dict[str, Any]] = []
        damaged: list[str] = []
        for entry in self.store.list(f"{self.folder}/events/"):
            try:
                lines = self.store.read(entry.path).splitlines()
            except MissingError:
                continue
            except (IntegrityError, StoreError) as error:
                if not error.permanent:
                    raise
                damaged.append(f"{entry.path}: {error.what}")
                continue
            bad = []
            for number, line in enumerate(lines, 1):
                try:
                    found.append(unseal(line))
                except ValueError:
                    bad.append(number)
            if bad:
                which = f"line {bad[0]}" if len(bad) == 1 else f"{len(bad)} lines, the first {bad[0]},"
                damaged.append(f"{entry.path}: {which} cannot be read.")
        return found, damaged

    def share(self) -> None:
        """Let others see what was written locally, now and then; what cannot be uploaded now is tried again later."""
        if self._remote and time.monotonic() - self._shared["at"] > SHARE_S and self._lock.acquire(blocking=False):
            try:
                self._shared["at"] = time.monotonic()
                with suppress(EdmError):
                    self._upload()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Upload what was written locally."""
        if self._remote:
            with self._lock:
                self._upload()

    def end(self) -> None:
        """Record that nobody works on this run any more, and the digests of what was appended to."""
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
        return getattr(self.store, "root", None) is None

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
    _shared: dict[str, float] = field(default_factory=lambda: {"at": time.monotonic()})  # sizes as uploaded, and when that was
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
    """The run of this experiment, recorded in the store: see `record`."""
    run = Run(run_id(experiment, tasks), store)
    record(run, experiment.name, experiment.text, tasks, absent, say)
    return run


def record(
    run: Run, name: str, experiment: str, tasks: Sequence[Task], absent: Mapping[str, str], say: Callable[[str], None] = _emit_waiting
) -> None:
    """Write what was asked into the run's folder: the experiment file's text, the plan and which metrics it leaves out for what reason, and
    a summary of it.

    From its return on nothing that the plan needs is removed: an `edm2 gc --apply` that had begun before is waited for, which `say` hears.
    """
    text = redacted(experiment).encode()
    run.store.write(f"{run.folder}/experiment.yaml", text)
    files = {"experiment.yaml": text, "plan.json": write_plan(run.store, run.id, name, tasks, absent)}
    write(run.store, summarise(run.id, name, tasks, time.time(), files))
    _wait_for_gc(run.store, say)


def add_tasks(run: Run, name: str, tasks: Sequence[Task], absent: Mapping[str, str], say: Callable[[str], None] = _emit_waiting) -> None:
    """Write the plan of a run that goes on, with the tasks that were added to it; what else its record says stays, such as its start.

    What the plan needs is safe from its return on, as with `record`.
    """
    plan = write_plan(run.store, run.id, name, tasks, absent)
    change(run.store, run.id, tasks=len(tasks), files=records_of({"plan.json": plan}))
    _wait_for_gc(run.store, say)


def run_id(experiment: Experiment, tasks: Sequence[Task]) -> str:
    """The experiment's name and a hash of its plan."""
    return f"{experiment.name}-{key_of('run', 1, {}, {str(t.ref): '' for t in tasks})[:6]}"


def find_run(address: str, store: str) -> Run:
    """The run at an address: an id in `store`, or a store's address with /runs/ID behind it.

    Raises InputError where there is no store, or no such run in it.
    """
    uri, found, name = address.removesuffix("/report.html").rstrip("/").rpartition("/runs/")
    run = Run(name, find_store(uri if found else store))
    _must_exist(run)
    return run


def load_plan(store: Store, run: str) -> tuple[str, Plan]:
    """The name and the plan of a recorded run.

    Raises InputError naming the runs there are, IntegrityError for a plan that cannot be read.
    """
    _must_exist(Run(run, store))
    try:
        found = read_plan(store, run)
    except MissingError as error:
        raise IntegrityError(f"The plan of {run} is missing.", where=error.where, do_next=MEND_PLAN) from None
    return found.name, found.plan


def load_absent(run: Run) -> dict[str, str]:
    """The metrics that a recorded run left out, by their name in results, and why."""
    try:
        return read_plan(run.store, run.id).absent
    except MissingError:
        return {}


def list_runs(store: Store) -> list[str]:
    """The ids of all runs in a store, those included whose plan is lost."""
    folders = store.folders("runs/")
    kept = each(store, lambda name: any(store.stat(path) for path in (plan_path(name), summary_path(name))), folders)
    return [name for name, is_run in zip(folders, kept, strict=True) if is_run]


def _must_exist(run: Run) -> None:
    path = plan_path(run.id)
    if "/" not in run.id and run.id not in ("", ".", "..") and any(run.store.stat(p) for p in (path, summary_path(run.id))):
        return
    known = list_runs(run.store)
    called = {part: name for name in known for part in (name, name.rpartition("-")[0])}  # with and without the hash that it ends with
    near = [name for name in known if run.id and name.startswith(run.id)] or [
        called[close] for close in difflib.get_close_matches(run.id, called, n=3)
    ]
    hint = f"Did you mean {' or '.join(dict.fromkeys(near[:3]))}? " if near else ""
    there = f"{hint}Runs there: {', '.join(known[:LISTED]) or 'none'}{f' and {len(known) - LISTED} more' if len(known) > LISTED else ''}."
    raise InputError(f"There is no run {run.id} in {run.store.uri}.", where=path, do_next=there)
