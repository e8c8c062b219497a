"""Reasons to refuse a run: the store has lost snapshots, or trainings would go on from states that differing code made."""

from collections.abc import Sequence

from edm2core.errors import InputError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.provenance.origin import code_version
from edm2core.provenance.science import ACCEPT, brief, same, science_of
from edm2core.store.base import Store
from edm2core.store.leases import holder
from edm2core.store.scratch import STATE_SLOTS, Scratch

NAMED = 4  # the most tasks that one message names


def lost_snapshots(tasks: Sequence[Task], store: Store) -> list[Task]:
    """The snapshots that are missing although a result made of them is there. To make one again may take as long as its training."""

    def is_there(ref: Ref) -> bool:
        return store.stat(ref.manifest) is not None

    made_of: dict[Ref, list[Ref]] = {}
    for task in tasks:
        for ref in task.inputs.values():
            made_of.setdefault(ref, []).append(task.ref)
    snapshots = [task for task in tasks if task.stage == "snapshot"]
    return [task for task in snapshots if not is_there(task.ref) and any(map(is_there, made_of.get(task.ref, ())))]


def refuse_lost(snapshots: Sequence[Task], store: Store) -> None:
    """Raise InputError naming lost snapshots, if there are any."""
    if snapshots:
        raise InputError(
            f"Snapshots are gone from the store, though results made of them are there: {_named([task.title for task in snapshots])}.",
            where=store.uri,
            do_next="`edm2 run --train-again` makes them again, each from the last state before it or, without one, from the beginning. "
            "Or bring back the store's files, or leave those epochs out of `epochs`.",
        )


def continued(tasks: Sequence[Task], there: dict[Ref, Manifest], store: Store) -> list[str]:
    """The first missing snapshot of each training that would go on from a state that differing code made, with that code, in words.

    Trainings that somebody works on at this moment are left out: each training looks again by itself.
    """
    first: dict[Ref, Task] = {}
    for task in tasks:
        if task.stage == "snapshot" and task.ref not in there:
            trajectory = trajectory_ref(task)
            first[trajectory] = min(first.get(trajectory, task), task, key=lambda each: int(each.settings["epoch"]))
    trainings = []
    for trajectory, task in first.items():
        scratch = Scratch(store, trajectory.scratch, 0)
        states = [about for slot in STATE_SLOTS if (about := scratch.about(slot))]
        usable = [about for about in states if about.get("science") and about["epochs"] <= task.settings["epoch"]]
        if not usable or any(same(about["science"], science_of("snapshot")) for about in usable):
            continue
        if (other := holder(store, trajectory)) and other.alive:
            continue
        last = max(usable, key=lambda about: float(about["epochs"]))
        trainings.append(f"{task.title} (from science {brief(last['science'])}, {last.get('code')})")
    return trainings


def refuse_continued(trainings: Sequence[str], store: Store) -> None:
    """Raise InputError naming trainings that would go on from a state that differing code made, if there are any."""
    if trainings:
        here = f"{brief(science_of('snapshot'))}, {code_version()}"
        raise InputError(
            f"Trainings would go on under other science ({here}) than that of their states: {_named(trainings)}.",
            where=store.uri,
            do_next=f"{ACCEPT} Or use the code that began them, or another store, where they begin anew.",
        )


def _named(names: Sequence[str]) -> str:
    return "; ".join(names[:NAMED]) + (f"; and {len(names) - NAMED} more" if len(names) > NAMED else "")
