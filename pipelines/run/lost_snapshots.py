"""Snapshots that an experiment asks for and its store has lost."""

from __future__ import annotations

from collections.abc import Sequence

from edm2core.errors import InputError
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task
from edm2core.store.base import Store

NAMED = 4  # of them in one message


def gone(tasks: Sequence[Task], store: Store) -> list[Task]:
    """The snapshots that are not there although something made of them is: making one again may take as long as its training."""
    made_of: dict[Ref, list[Ref]] = {}
    for task in tasks:
        for ref in task.inputs.values():
            made_of.setdefault(ref, []).append(task.ref)
    return [
        task
        for task in tasks
        if task.stage == "snapshot" and not _there(store, task.ref) and any(_there(store, ref) for ref in made_of.get(task.ref, ()))
    ]


def refuse(lost: Sequence[Task], store: Store) -> None:
    """Raise InputError naming lost snapshots, if there are any."""
    if not lost:
        return
    names = ", ".join(task.title for task in lost[:NAMED]) + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
    raise InputError(
        f"Snapshots are gone from the store, though results made of them are there: {names}.",
        where=store.uri,
        do_next="`edm2 run --train-again` makes them again, each from the last state before it or, without one, from the beginning. "
        "Or bring back the store's files, or leave those epochs out of `epochs`.",
    )


def _there(store: Store, ref: Ref) -> bool:
    return store.stat(ref.manifest) is not None
