"""Wishes: which epochs of a trajectory runs want as snapshots. Each run has its own record; the training reads all of them every epoch.

A run removes its own record alone, so a run that stops takes nothing from another one that wants the same epochs.
"""

import json
from collections.abc import Iterable
from contextlib import suppress

from edm2core.errors import IntegrityError, MissingError
from edm2core.events import emit
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store.base import Store
from edm2core.store.sealed import sealed, unseal


def want(store: Store, trajectory: Ref, who: str, epochs: tuple[int, ...]) -> None:
    """Record that `who`, such as a run's id, wants these epochs."""
    store.write(_path(trajectory, who), sealed({"epochs": sorted(epochs)}, None))


def unwant(store: Store, tasks: Iterable[Task], who: str) -> None:
    """Take back the wishes of `who` for the tasks' trajectories: it has its snapshots, or was stopped."""
    for trajectory in {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}:
        store.delete(_path(trajectory, who))


def wanted_epochs(store: Store, trajectory: Ref) -> set[int]:
    """All epochs that anybody wants. A damaged record is left out, with a warning."""
    epochs: set[int] = set()
    for path in wishes(store, trajectory):
        try:
            with suppress(MissingError):  # removed since it was listed
                epochs |= read_wish(store, path)
        except IntegrityError as error:
            emit(
                "warning", message=f"A run's wish for snapshots cannot be read: {path}. {error.what} Start that run again to have it back."
            )
    return epochs


def wishes(store: Store, trajectory: Ref) -> list[str]:
    """The paths of all wishes for a trajectory's snapshots."""
    return [entry.path for entry in store.list(f"{trajectory.scratch}/wanted/")]


def read_wish(store: Store, path: str) -> set[int]:
    """The epochs of one wish. Raises MissingError if it is not there, IntegrityError if it is damaged."""
    try:
        data = store.read(path)
        epochs = json.loads(data) if data.startswith(b"[") else unseal(data, ())["epochs"]  # earlier versions wrote the list alone
        if not isinstance(epochs, list) or not all(isinstance(epoch, int) for epoch in epochs):
            raise ValueError("it holds no epochs")
        return set(epochs)
    except (ValueError, KeyError) as error:
        raise IntegrityError(f"The record is damaged: {error}.", where=f"{store.uri}/{path}") from None


def _path(trajectory: Ref, who: str) -> str:
    return f"{trajectory.scratch}/wanted/{who}.json"
