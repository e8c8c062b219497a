"""edm2 tensorboard"""

import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from edm2core.errors import InputError, IntegrityError, StoreError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store import find_store
from edm2core.store.base import Store
from edm2core.store.results import manifests
from edm2core.store.runs import load_plan
from pipelines.cli.options import store_argument

POLL_S = 15.0  # the time between two looks for new values


@click.command()
@store_argument
@click.option("--host", default="localhost", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="Port to listen at.")
def command(store: str, host: str, port: int) -> None:
    """Start TensorBoard on the event files of all trainings in STORE, each under its recipe, seed and key, until Ctrl-C.

    Metrics and probes are shown by epoch, in each training's `evaluation`. New values of running trainings appear as they come.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("TensorBoard is not installed here.", do_next="pip install 'edm2[compute]'")
    where = find_store(store)
    _must_be_free(host, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that TensorBoard always ends with this command
    with tempfile.TemporaryDirectory(prefix="edm2-tensorboard-") as folder:
        boards = Boards(where, Path(folder))
        if not boards.bring():
            raise InputError("No training has written event files there.", where=where.uri, do_next="`edm2 runs` lists what a store holds.")
        server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--host", host, "--port", str(port), "--reload_interval", "10"]
        )
        try:
            while server.poll() is None:
                try:
                    server.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    with suppress(StoreError):  # the store may answer the next time
                        boards.bring()
        finally:
            boards.close()
            server.terminate()
            server.wait()


def _must_be_free(host: str, port: int) -> None:
    """Raise InputError if nothing can listen there. TensorBoard itself would print a page of text."""
    if port:
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            what = f"{host}:{port} cannot be listened at: {error.strerror or error}."
            raise InputError(what, where="--port", do_next="Give another one.") from None


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
