"""Snapshots that an experiment asks for and its store has lost."""

from __future__ import annotations

from collections.abc import Sequence

from edm2core.manifest import Ref
from edm2core.plan import Task
from edm2core.store.base import Store


def gone(tasks: Sequence[Task], store: Store) -> list[str]:
    """A line for each snapshot that is not there although something made of it is: making it again may take as long as its training."""
    made_of: dict[Ref, list[Ref]] = {}
    for task in tasks:
        for ref in task.inputs.values():
            made_of.setdefault(ref, []).append(task.ref)
    return [
        f"{task.title}: its snapshot is gone from the store, though results made of it are there. It is trained again, from the last state "
        "before it if there is one; leave its epoch out of `epochs` if it is not worth that."
        for task in tasks
        if task.stage == "snapshot" and not _there(store, task.ref) and any(_there(store, ref) for ref in made_of.get(task.ref, ()))
    ]


def _there(store: Store, ref: Ref) -> bool:
    return store.stat(ref.manifest) is not None
