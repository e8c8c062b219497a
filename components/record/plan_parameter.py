"""A package's plan: one parameter carries it, the run's first task records it in the store, and all other tasks read it there.

Kubeflow keeps several copies of a task's arguments, so a task only gets its name and the plan's address. The digest in the address shows
whether the recorded plan is the one that was submitted. A run that was submitted in parts has a plan for each part.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from edm2core.errors import EdmError, IntegrityError
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store import open_store
from edm2core.store.base import Store


@dataclass(frozen=True)
class Packed:
    """What a package is to do: an experiment's name and text, some or all of its tasks, and why it leaves out which metrics."""

    name: str
    experiment: str
    tasks: list[dict[str, Any]]
    absent: dict[str, str]
    part: str = ""  # which part of the experiment, where it is submitted in several
    recipes: dict[str, Any] = field(default_factory=dict)  # of the whole experiment

    @classmethod
    def of(cls, name: str, experiment: str, tasks: Sequence[Task], absent: Mapping[str, str], part: str = "") -> Self:
        plan = Plan.of(tasks)
        return cls(name, experiment, [task.to_json() for task in plan], dict(absent), part, plan.stored_recipes())

    def dumps(self) -> str:
        """One short line. It is compressed, since a plan repeats itself, and has no braces, which Argo would substitute."""
        return base64.b64encode(lzma.compress(json.dumps(asdict(self)).encode(), preset=9 | lzma.PRESET_EXTREME)).decode()

    @classmethod
    def loads(cls, text: str) -> Self:
        return cls(**json.loads(lzma.decompress(base64.b64decode(text))))


@dataclass(frozen=True)
class Recorded:
    """A plan in the store: its run, and the cluster profile (as JSON; empty: none) with which it is carried out."""

    run: str
    store: str
    profile: str
    part: str
    plan: Plan

    def task(self, of: str, name: str) -> Task:
        """The task of that name of that trajectory; raises IntegrityError if there is none."""
        for who, group in grouped(self.plan).items():
            for ref, known in named(self.plan, group).items():
                if (who, known) == (of, name):
                    return self.plan.by_ref[ref]
        raise IntegrityError(f"The plan has no task {name} of {of}.", where=f"{self.store}/{_folder(self.run)}", do_next="Submit it again.")


def put(store: Store, packed: Packed, run: str, profile: str) -> str:
    """Record the plan of a run in the store; its address."""
    data = json.dumps({"part": packed.part, "profile": profile, "tasks": packed.tasks, "recipes": packed.recipes}, sort_keys=True).encode()
    path = f"{_folder(run)}{hashlib.sha256(data).hexdigest()[:20]}.json"
    store.write(path, data)
    return f"{store.uri}/{path}"


def read(address: str) -> Recorded:
    """The plan at an address; raises IntegrityError if it is not what the address says."""
    uri, _, rest = address.rpartition("/runs/")
    run = rest.partition("/")[0]
    return _read(open_store(uri), run, f"runs/{rest}")


def recorded(store: Store, run: str) -> list[Recorded]:
    """All plans of a run that are not damaged, sorted by the names of its parts."""
    found = []
    for entry in store.list(_folder(run)):
        try:
            found.append(_read(store, run, entry.path))
        except EdmError:
            continue
    return sorted(found, key=lambda plan: plan.part)


def grouped(plan: Plan) -> dict[str, list[Task]]:
    """The tasks of each trajectory under its name, such as E · seed 0; those that several share under the empty name."""
    groups = plan.trajectories()
    inside = {task.ref for group in groups.values() for task in group}
    shared = [task for task in plan if task.ref not in inside]
    return {"": shared, **{group[0].whose: group for group in groups.values()}}


def named(plan: Plan, group: Sequence[Task]) -> dict[Ref, str]:
    """The names of a trajectory's tasks within it, such as ep 200 · FD; the epoch first, since Kubeflow shows two dozen characters."""
    names = {task.ref: f"ep {task.subject.epoch} · {plan.what(task)}" if task.subject.recipe else task.title for task in group}
    times = Counter(names.values())
    return {
        task.ref: f"{names[task.ref]} · {task.short or task.subject.dataset}" if times[names[task.ref]] > 1 else names[task.ref]
        for task in group
    }


def wisher(run: str) -> str:
    """Under which name Kubeflow's run wants snapshots. `edm2 run` of the same run may be live too, and takes back only its own wishes."""
    return f"{run}.kubeflow"


def _read(store: Store, run: str, path: str) -> Recorded:
    data = store.read(path)
    if hashlib.sha256(data).hexdigest()[:20] != path.rpartition("/")[2].removesuffix(".json"):
        raise IntegrityError("The run's recorded plan is damaged.", where=f"{store.uri}/{path}", do_next="Submit the experiment again.")
    try:
        values = json.loads(data)
        plan = Plan.parse(values["tasks"], values.get("recipes"))
        return Recorded(run, store.uri, values["profile"], values["part"], plan)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"The run's recorded plan is of another version of edm2 ({error}).",
            where=f"{store.uri}/{path}",
            do_next="Name images of this version in the profile, or submit with that one.",
        ) from None


def _folder(run: str) -> str:
    return f"runs/{run}/kubeflow/"
