"""A folder for TensorBoard: copies of a store's event files, and its results by epoch."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edm2core.errors import IntegrityError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store.base import Store
from edm2core.store.results import manifests
from edm2core.store.runs import load_plan


class Boards:
    """Keeps a folder up to date for TensorBoard. Each training has a folder, named by recipe, seed and key, with `evaluation` in it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._plans: dict[str, tuple[int, Plan]] = {}  # with the size of the file, which a plan that grew changes
        self._names: dict[Ref, str] = {}  # of snapshots' tasks: the folder of their training
        self._shown: set[Ref] = set()
        self._writers: dict[str, Any] = {}

    def bring(self) -> int:
        """Copy what is new. Returns how many event files and results there are."""
        plans, trainings = [], dict[Ref, str]()
        for tasks in self._all_plans():
            with suppress(ValidationError):  # a plan of another version, with settings that this one does not know
                trainings |= self._trainings(tasks)
                plans.append(tasks)
        count = sum(self._bring(ref, name) for ref, name in trainings.items())
        for tasks in plans:
            self._evaluate(tasks)
        for writer in self._writers.values():
            writer.flush()
        return count + len(self._shown)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _all_plans(self) -> Iterator[Plan]:
        """The plans of all runs that can be read."""
        for run in self._store.folders("runs/"):
            entry = self._store.stat(f"runs/{run}/plan.json")
            if entry is None:
                continue
            if run not in self._plans or self._plans[run][0] != entry.size:
                try:
                    self._plans[run] = (entry.size, load_plan(self._store, run)[1])
                except IntegrityError:
                    continue
            yield self._plans[run][1]

    def _trainings(self, tasks: Plan) -> dict[Ref, str]:
        """The folder of each training; `_names` gets those of its snapshots."""
        folders: dict[Ref, str] = {}
        for task in tasks:
            if task.stage == "snapshot":
                ref = trajectory_ref(task)
                folders[ref] = self._names[task.ref] = f"{task.subject.recipe}-seed{task.subject.seed}-{ref.key[:6]}".replace("/", "-")
        return folders

    def _bring(self, training: Ref, name: str) -> int:
        """Copy what is new of a training's event files; returns how many files it has."""
        entries = list(self._store.list(f"{training.scratch}/tensorboard/"))
        for entry in entries:
            path = self._folder / name / entry.path.rpartition("/")[2]
            if not path.exists() or path.stat().st_size != entry.size:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._store.read(entry.path))  # in place, since TensorBoard keeps the file open and reads on
        return len(entries)

    def _evaluate(self, tasks: Plan) -> None:
        """Write the new results of metrics and probes, by epoch."""
        new = [task for task in tasks if task.stage in ("metrics", "probe") and task.ref not in self._shown and task.subject.recipe]
        made = manifests(self._store, new)
        for task in new:
            manifest, snapshot = made.get(task.ref), tasks.snapshot_of(task)
            name = self._names.get(snapshot.ref) if snapshot else None
            if manifest is None or name is None:
                continue
            self._shown.add(task.ref)
            for metric, value in manifest.measured.items():
                if value is not None:
                    self._write(f"{name}/evaluation", f"{metric}{_variant(task)}", value, task.subject.epoch, manifest)

    def _write(self, name: str, tag: str, value: float, epoch: int, manifest: Manifest) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if name not in self._writers:
            self._writers[name] = EventFileWriter(str(self._folder / name))
        made = float(manifest.provenance.get("started") or 0.0)
        event = Event(wall_time=made, step=epoch, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
        self._writers[name].add_event(event)


def _variant(task: Task) -> str:
    """The suffix that tells results of the same metric and epoch apart."""
    subject = task.subject
    average = f" · EMA {subject.ema}" if subject.ema not in ("", "fixed") else ""
    return average + (f" · draw {subject.draw}" if subject.draw else "") + (" · again" if subject.recheck else "")
