"""Which epochs of a trajectory runs want snapshots of: a record a run, which the training reads again every epoch."""

from __future__ import annotations

import json

from edm2core.manifest import Ref
from edm2core.store.base import Store


def want(store: Store, trajectory: Ref, run: str, epochs: tuple[int, ...]) -> None:
    """Record that `run` wants these epochs."""
    store.write(_path(trajectory, run), json.dumps(sorted(epochs)).encode())


def unwant(store: Store, trajectory: Ref, run: str) -> None:
    """Take the run's wish back: it is done, or was stopped."""
    store.delete(_path(trajectory, run))


def wanted_epochs(store: Store, trajectory: Ref) -> set[int]:
    """All epochs that any run wants."""
    return {epoch for entry in store.list(f"{trajectory.scratch}/wanted/") for epoch in json.loads(store.read(entry.path))}


def _path(trajectory: Ref, run: str) -> str:
    return f"{trajectory.scratch}/wanted/{run}.json"
