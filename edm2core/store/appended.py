"""Digests of files that only grow: a run's events, its tasks' logs, and TensorBoard's event files of its trainings.

They are recorded when a run ends. Later runs append to the files, so only the recorded length is compared.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import FileRecord, parse_records
from edm2core.plan.tasks import Task
from edm2core.store.averages import trainings
from edm2core.store.base import Flaw, Store, difference
from edm2core.store.plans import read_plan
from edm2core.store.sealed import read_sealed, sealed


def appended_path(run: str) -> str:
    return f"runs/{run}/appended.json"


def record_appended(store: Store, run: str, accepted: str = "") -> None:
    """Record the files as they are now. A damaged record is made anew.

    A file whose recorded bytes have changed keeps its record, so that its damage stays known. Only the `accepted` file is recorded as it is
    now, or forgotten if it is gone.
    """
    damaged: dict[str, FileRecord] = {}
    with suppress(IntegrityError):
        known = _load(store, run)
        damaged = {flaw.path: known[flaw.path] for flaw in _changed(store, known) if flaw.path != accepted}
    files = {path: store.record(path) for path in _paths(store, run) if path not in damaged} | damaged
    store.write(appended_path(run), sealed({"files": files}))


def changed_appended(store: Store, run: str) -> Iterator[Flaw]:
    """The files that no longer begin with the bytes that were recorded. Raises IntegrityError if the record itself is damaged."""
    return _changed(store, _load(store, run))


def _paths(store: Store, run: str) -> list[str]:
    tasks: Sequence[Task] = []
    with suppress(MissingError, IntegrityError):
        tasks = read_plan(store, run).plan
    folders = [f"runs/{run}/events/", f"runs/{run}/logs/", *(f"{ref.scratch}/tensorboard/" for ref in trainings(tasks))]
    return [entry.path for folder in folders for entry in store.list(folder)]


def _changed(store: Store, known: dict[str, FileRecord]) -> Iterator[Flaw]:
    for path, record in known.items():
        if what := difference(store, path, record, grows=True):
            yield Flaw(path, what)


def _load(store: Store, run: str) -> dict[str, FileRecord]:
    """The recorded files; empty for a run that has not ended yet, or that ended under an earlier version."""
    with suppress(MissingError):
        return read_sealed(store, appended_path(run), lambda values: parse_records(values["files"]), ())
    return {}
