"""Which epochs of a trajectory are wanted as snapshots: a record for each who wants some, which the training reads again every epoch.

Whoever wants takes back its own record and no other: a run that stops takes nothing from another one that wants the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from edm2core.errors import MissingError
from edm2core.manifest import Ref
from edm2core.plan import Task, trajectory_ref
from edm2core.store.base import Store


def want(store: Store, trajectory: Ref, who: str, epochs: tuple[int, ...]) -> None:
    """Record that `who` wants these epochs."""
    store.write(_path(trajectory, who), json.dumps(sorted(epochs)).encode())


def unwant(store: Store, tasks: Iterable[Task], who: str) -> None:
    """Take back what `who` wants of the tasks' trajectories: it has it, or was stopped."""
    for trajectory in {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}:
        store.delete(_path(trajectory, who))


def wanted_epochs(store: Store, trajectory: Ref) -> set[int]:
    """All epochs that anybody wants."""
    epochs: set[int] = set()
    for entry in store.list(f"{trajectory.scratch}/wanted/"):
        try:
            epochs |= set(json.loads(store.read(entry.path)))
        except MissingError:  # taken back since it was listed
            continue
    return epochs


def _path(trajectory: Ref, who: str) -> str:
    return f"{trajectory.scratch}/wanted/{who}.json"
