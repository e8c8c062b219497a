"""Trainings that would go on from a state which other science made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from edm2core.errors import InputError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.provenance.origin import code_version
from edm2core.provenance.science import ACCEPT, brief, same, science_of
from edm2core.store.base import Store
from edm2core.store.leases import holder
from edm2core.store.scratch import STATE_SLOTS, Scratch

NAMED = 4  # of them in one message


class Continued(NamedTuple):
    """A task that would train on from a state by other science: that science, and the version of the code."""

    task: Task
    science: str
    code: str

    def __str__(self) -> str:
        return f"{self.task.title} (from science {brief(self.science)}, {self.code})"


def continued(tasks: Sequence[Task], there: dict[Ref, Manifest], store: Store) -> list[Continued]:
    """The first missing snapshot of each training whose next state to go on from is by other science than this code's.

    The training itself looks again; what somebody else trains at this moment is left to it.
    """
    first: dict[Ref, Task] = {}
    for task in tasks:
        if task.stage == "snapshot" and task.ref not in there:
            trajectory = trajectory_ref(task)
            first[trajectory] = min(first.get(trajectory, task), task, key=lambda each: int(each.settings["epoch"]))
    found = []
    for trajectory, task in first.items():
        scratch = Scratch(store, trajectory.scratch, 0)
        states = [about for slot in STATE_SLOTS if (about := scratch.about(slot))]
        usable = [about for about in states if about.get("science") and about["epochs"] <= task.settings["epoch"]]
        if not usable or any(same(about["science"], science_of("snapshot")) for about in usable):
            continue
        if (other := holder(store, trajectory)) and other.alive:
            continue
        last = max(usable, key=lambda about: float(about["epochs"]))
        found.append(Continued(task, str(last["science"]), str(last.get("code"))))
    return found


def accepting(plan: Plan) -> Plan:
    """The tasks as they are recorded and given to those that train, where other science is accepted."""
    return replace(plan, tasks=tuple(replace(task, accept_code=task.stage == "snapshot") for task in plan))


def refuse(found: Sequence[Continued], store: Store) -> None:
    """Raise InputError naming such trainings, if there are any."""
    if not found:
        return
    here = f"{brief(science_of('snapshot'))}, {code_version()}"
    names = "; ".join(map(str, found[:NAMED])) + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
    raise InputError(
        f"Trainings would go on under other science ({here}) than that of their states: {names}.",
        where=store.uri,
        do_next=f"{ACCEPT} Or use the code that began them, or another store, where they begin anew.",
    )
