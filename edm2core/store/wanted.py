"""Which epochs of a trajectory are wanted as snapshots: a record for each who wants some, which the training reads again every epoch.

Whoever wants takes back its own record and no other: a run that stops takes nothing from another one that wants the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from edm2core.errors import IntegrityError, MissingError
from edm2core.events import emit
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store.base import Store
from edm2core.store.sealed import is_sealed, sealed, unseal


def want(store: Store, trajectory: Ref, who: str, epochs: tuple[int, ...]) -> None:
    """Record that `who` wants these epochs."""
    store.write(_path(trajectory, who), sealed({"epochs": sorted(epochs)}, None))


def unwant(store: Store, tasks: Iterable[Task], who: str) -> None:
    """Take back what `who` wants of the tasks' trajectories: it has it, or was stopped."""
    for trajectory in {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}:
        store.delete(_path(trajectory, who))


def wanted_epochs(store: Store, trajectory: Ref) -> set[int]:
    """All epochs that anybody wants; a record that is damaged is left out, saying so."""
    epochs: set[int] = set()
    for path in wishes(store, trajectory):
        try:
            epochs |= read_wish(store, path)
        except MissingError:  # taken back since it was listed
            continue
        except IntegrityError as error:
            emit(
                "warning", message=f"A run's wish for snapshots cannot be read: {path}. {error.what} Start that run again to have it back."
            )
    return epochs


def wishes(store: Store, trajectory: Ref) -> list[str]:
    """Where the records of a trajectory lie."""
    return [entry.path for entry in store.list(f"{trajectory.scratch}/wanted/")]


def read_wish(store: Store, path: str) -> set[int]:
    """The epochs of one record. Raises MissingError if it is not there, IntegrityError if it is damaged."""
    try:
        data = store.read(path)
        epochs = unseal(data)["epochs"] if is_sealed(data) else json.loads(data)  # earlier versions wrote the list alone
        if not isinstance(epochs, list) or not all(isinstance(epoch, int) for epoch in epochs):
            raise ValueError("it holds no epochs")
        return set(epochs)
    except (ValueError, KeyError) as error:
        raise IntegrityError(f"The record is damaged: {error}.", where=f"{store.uri}/{path}") from None


def _path(trajectory: Ref, who: str) -> str:
    return f"{trajectory.scratch}/wanted/{who}.json"
