"""A run's folder in the store: what was asked, what happened, what was found."""

from __future__ import annotations

import difflib
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edm2core.addresses import redacted
from edm2core.config.experiment import Experiment
from edm2core.errors import EdmError, InputError, IntegrityError
from edm2core.keys import key_of
from edm2core.plan import Task
from edm2core.store import find_store
from edm2core.store.base import Store
from edm2core.store.summary import change, summarise, write

SHARE_S = 15.0  # between two uploads of what a run writes locally
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
        return self._local / "logs" / f"{task.stage}-{task.key}" / f"{rank}.log"

    def log(self, event: dict[str, Any]) -> None:
        """Add an event to this process's part of the run's record, with its time where it has none."""
        path = self._local / "events" / f"{self._started}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(redacted(json.dumps({"time": round(time.time(), 3), **event}, default=str)) + "\n")
        self.share()

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
        """Record that nobody works on this run any more."""
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

    @cached_property
    def _local(self) -> Path:
        root = getattr(self.store, "root", None)
        return Path(root) / self.folder if root is not None else Path(tempfile.mkdtemp(prefix="edm2-run-"))

    _started: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}")
    _shared: dict[str, float] = field(default_factory=lambda: {"at": time.monotonic()})  # sizes as uploaded, and when that was
    _lock: threading.Lock = field(default_factory=threading.Lock)


def open_run(store: Store, experiment: Experiment, tasks: list[Task], absent: Mapping[str, str]) -> Run:
    """The run of this experiment, recorded in the store."""
    run = Run(run_id(experiment, tasks), store)
    record(run, experiment.name, experiment.text, [task.to_json() for task in tasks], absent)
    return run


def record(run: Run, name: str, experiment: str, tasks: list[dict[str, Any]], absent: Mapping[str, str]) -> None:
    """Write what was asked into the run's folder: the experiment file's text, the plan and which metrics it leaves out for what reason, and
    a summary of it."""
    plan = json.dumps({"name": name, "absent": dict(absent), "tasks": tasks}, indent=1).encode()
    files = {"experiment.yaml": redacted(experiment).encode(), "plan.json": plan}
    for file, data in files.items():
        run.store.write(f"{run.folder}/{file}", data)
    write(run.store, summarise(run.id, name, tasks, time.time(), files))


def run_id(experiment: Experiment, tasks: list[Task]) -> str:
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


def load_plan(store: Store, run: str) -> tuple[str, list[Task]]:
    """The name and the tasks of a recorded run.

    Raises InputError naming the runs there are, IntegrityError for a plan that cannot be read.
    """
    path = f"runs/{run}/plan.json"
    _must_exist(Run(run, store))
    try:
        values = json.loads(store.read(path))
        return str(values["name"]), [Task.from_json(task) for task in values["tasks"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"The plan of {run} cannot be read: it is damaged, or of another version of edm2 ({error}).",
            where=f"{store.uri}/{path}",
            do_next="Use the version that made it, or run its experiment again.",
        ) from None


def load_absent(run: Run) -> dict[str, str]:
    """The metrics that a recorded run left out, by their name in results, and why."""
    path = f"{run.folder}/plan.json"
    found: dict[str, str] = json.loads(run.store.read(path)).get("absent", {}) if run.store.stat(path) else {}
    return found


def list_runs(store: Store) -> list[str]:
    """The ids of all runs in a store."""
    return [name for name in store.folders("runs/") if store.stat(f"runs/{name}/plan.json")]


def _must_exist(run: Run) -> None:
    path = f"{run.folder}/plan.json"
    if "/" not in run.id and run.id not in ("", ".", "..") and run.store.stat(path) is not None:
        return
    known = list_runs(run.store)
    called = {part: name for name in known for part in (name, name.rpartition("-")[0])}  # with and without the hash that it ends with
    near = [name for name in known if run.id and name.startswith(run.id)] or [
        called[close] for close in difflib.get_close_matches(run.id, called, n=3)
    ]
    hint = f"Did you mean {' or '.join(dict.fromkeys(near[:3]))}? " if near else ""
    there = f"{hint}Runs there: {', '.join(known[:LISTED]) or 'none'}{f' and {len(known) - LISTED} more' if len(known) > LISTED else ''}."
    raise InputError(f"There is no run {run.id} in {run.store.uri}.", where=path, do_next=there)
