"""A run's folder in the store: what was asked, what happened, what was found."""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edm2core.config.experiment import Experiment
from edm2core.errors import InputError
from edm2core.keys import key_of
from edm2core.plan import Task
from edm2core.store.base import Store

NOTES = "notes.md"  # the user's own words about a run, which only the user writes


@dataclass(frozen=True)
class Run:
    """One experiment in one store; the same experiment in the same store is the same run, however often it is started."""

    id: str
    store: Store
    scratch: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="edm2-run-")))

    @property
    def folder(self) -> str:
        return f"runs/{self.id}"

    def log_path(self, task: Task, rank: int = 0) -> Path:
        """The local file for a task's output: in the store's own folder if the store is one, else uploaded when the run ends."""
        return self._local() / "logs" / f"{task.stage}-{task.key}" / f"{rank}.log"

    def log(self, event: dict[str, Any]) -> None:
        """Add an event to this process's part of the run's record, with its time where it has none."""
        path = self._local() / "events" / f"{self._started}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **event}, default=str) + "\n")

    def close(self) -> None:
        """Upload what was written locally."""
        if getattr(self.store, "root", None) is None:
            for path in sorted(p for p in self.scratch.rglob("*") if p.is_file()):
                self.store.write(f"{self.folder}/{path.relative_to(self.scratch).as_posix()}", path.read_bytes())

    def _local(self) -> Path:
        root = getattr(self.store, "root", None)
        return Path(root) / self.folder if root is not None else self.scratch

    _started: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}")


def open_run(store: Store, experiment: Experiment, tasks: list[Task], absent: Mapping[str, str]) -> Run:
    """The run of this experiment, recorded in the store."""
    run = Run(run_id(experiment, tasks), store)
    record(run, experiment.name, experiment.text, [task.to_json() for task in tasks], absent)
    return run


def record(run: Run, name: str, experiment: str, tasks: list[dict[str, Any]], absent: Mapping[str, str]) -> None:
    """Write what was asked into the run's folder: the experiment file's text, the plan, and which metrics it leaves out for what reason."""
    run.store.write(f"{run.folder}/experiment.yaml", experiment.encode())
    run.store.write(f"{run.folder}/plan.json", json.dumps({"name": name, "absent": dict(absent), "tasks": tasks}, indent=1).encode())


def run_id(experiment: Experiment, tasks: list[Task]) -> str:
    """The experiment's name and a hash of its plan."""
    return f"{experiment.name}-{key_of('run', 1, {}, {str(t.ref): '' for t in tasks})[:6]}"


def load_plan(store: Store, run: str) -> tuple[str, list[Task]]:
    """The name and the tasks of a recorded run; raises InputError naming the runs there are."""
    path = f"runs/{run}/plan.json"
    if store.stat(path) is None:
        raise InputError(
            f"There is no run {run} in {store.uri}.", where=path, do_next=f"Runs there: {', '.join(list_runs(store)) or 'none'}."
        )
    values = json.loads(store.read(path))
    return values["name"], [Task.from_json(task) for task in values["tasks"]]


def load_absent(run: Run) -> dict[str, str]:
    """The metrics that a recorded run left out, by their name in results, and why."""
    path = f"{run.folder}/plan.json"
    found: dict[str, str] = json.loads(run.store.read(path)).get("absent", {}) if run.store.stat(path) else {}
    return found


def list_runs(store: Store) -> list[str]:
    """The ids of all runs in a store."""
    return sorted({entry.path.split("/")[1] for entry in store.list("runs/") if entry.path.endswith("/plan.json")})
