"""A stage's workspace: its settings, verified inputs, a folder for results, and scratch that survives a crash."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edm2core.errors import EdmError, MissingError
from edm2core.events import emit
from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import Task
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.scratch import Scratch
from edm2core.worker.signals import stop_if_asked

SPEAK_EVERY_S = 0.5  # the least time between two reports of progress
LOOK_S = 1.0  # the time between two looks whether an input is there
PATIENCE_S = 2 * 3600  # the most time to wait for an input; published archives download within minutes


@dataclass(frozen=True)
class Input:
    """A finished result that a task reads."""

    manifest: Manifest
    store: Store
    folder: Path  # where a remote store's files are downloaded to

    def path(self, name: str) -> Path:
        """A local, verified copy of one of its files; raises MissingError if the result has no such file."""
        if name not in self.manifest.files:
            raise MissingError(f"{self.manifest.title}: the result has no file {name}.", where=self.manifest.ref.folder)
        return self.store.fetch(self.manifest.path(name), self.folder, self.manifest.files[name])

    def all(self) -> Path:
        """The folder that holds all of its files, verified."""
        paths = {name: self.path(name) for name in self.manifest.files}
        return next((path.parents[name.count("/")] for name, path in paths.items()), self.folder)


@dataclass
class Workspace:
    """A task that this process works on.

    Files written below `out` become the result, and `metadata` goes into its manifest. `rank` is this process's number among the
    `world_size` processes of the task.
    """

    task: Task
    store: Store
    out: Path
    scratch: Scratch
    inputs: dict[str, Input]
    rank: int = 0
    world_size: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    _spoke: float = 0.0  # when progress was last told, by the monotonic clock

    @property
    def settings(self) -> dict[str, Any]:
        return self.task.settings

    def progress(self, done: float, total: float, **numbers: float | int | str | None) -> None:
        """Say how far the task is: at most twice a second, and at its end. Raises Interrupted if the process has been asked to stop."""
        now = time.monotonic()
        if self.rank == 0 and (done >= total or now - self._spoke >= SPEAK_EVERY_S):
            self._spoke = now
            emit("progress", task=self.task.title, done=done, total=total, **numbers)
        stop_if_asked()

    def write_json(self, name: str, facts: dict[str, Any], more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Write a JSON file of the result. The `facts` are put into the manifest too, but not what is in `more`."""
        (self.out / name).write_text(json.dumps({**facts, **more}, indent=1, allow_nan=False), encoding="utf-8")
        self.metadata |= facts

    def warn(self, message: str) -> None:
        """Warn whoever follows the task. Raises Interrupted if the process has been asked to stop."""
        emit("warning", message=message)
        stop_if_asked()


def wait_for_inputs(task: Task, store: Store) -> None:
    """Return when all of the task's inputs are in the store. Raises EdmError after two hours, Interrupted when asked to stop.

    `kubectl apply` starts this task's job and the jobs that make its inputs at the same time, and no scheduler orders them.
    """
    end, told, missing = time.monotonic() + PATIENCE_S, False, list(task.inputs.values())
    while missing := [ref for ref in missing if load(store, ref) is None]:
        if not told:
            emit("waiting", message=f"for {missing[0]}, which another job makes")
            told = True
        if time.monotonic() > end:
            late = f"{missing[0]} is still not in the store after {PATIENCE_S // 3600} hours of waiting."
            do_next = "Look at the job that prepares the data: it is in the same file, and its pods' logs say what keeps it."
            raise EdmError(late, where=store.uri, do_next=do_next)
        stop_if_asked()
        time.sleep(LOOK_S)


def open_inputs(task: Task, store: Store, folder: Path) -> dict[str, Input]:
    """The results that a task names as inputs; raises MissingError for one that is not there."""
    inputs = {}
    for name, ref in task.inputs.items():
        manifest = load(store, ref)
        if manifest is None:
            missing, where = f"{task.title}: its input '{name}' is not in the store.", f"{store.uri}/{ref.folder}"
            raise MissingError(missing, where=where, do_next="Run the experiment again; it will be made anew.")
        inputs[name] = Input(manifest, store, folder / name)
    return inputs
