"""A package's plan. The run's first task gets it as a parameter and records it in the store, where all other tasks read it.

Kubeflow keeps several copies of a task's arguments, so the other tasks only get their name and the plan's address. The address contains
the plan's digest, which shows whether the plan there is the submitted one. A run that was submitted in parts has a plan for each part.
"""

import base64
import hashlib
import json
import lzma
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from edm2core.errors import EdmError, IntegrityError
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store import open_store, split_address
from edm2core.store.base import Store


@dataclass(frozen=True)
class Packed:
    """What a package is to do. `absent` says of each metric that is left out why."""

    name: str  # of the experiment
    experiment: str  # its text
    tasks: list[dict[str, Any]]
    absent: dict[str, str]
    part: str = ""  # such as "2 of 3", if the experiment is submitted in parts
    recipes: dict[str, Any] = field(default_factory=dict)  # of the whole experiment

    @classmethod
    def of(cls, name: str, experiment: str, tasks: Sequence[Task], absent: Mapping[str, str], part: str = "") -> Self:
        plan = Plan.of(tasks)
        return cls(name, experiment, [task.to_json() for task in plan], dict(absent), part, plan.stored_recipes())

    def dumps(self) -> str:
        """The package as one short line: compressed, and in base64, since Argo would substitute what stands in braces."""
        return base64.b64encode(lzma.compress(json.dumps(asdict(self)).encode(), preset=9 | lzma.PRESET_EXTREME)).decode()

    @classmethod
    def loads(cls, text: str) -> Self:
        return cls(**json.loads(lzma.decompress(base64.b64decode(text))))


@dataclass(frozen=True)
class Recorded:
    """A plan in the store, its run, and its cluster profile as JSON (empty: none)."""

    run: str
    store: str
    profile: str
    part: str
    plan: Plan

    def task(self, of: str, name: str) -> Task:
        """The task of that name of the trajectory `of`; raises IntegrityError if there is none."""
        for ref, known in named(self.plan, grouped(self.plan).get(of, [])).items():
            if known == name:
                return self.plan.by_ref[ref]
        raise IntegrityError(f"The plan has no task {name} of {of}.", where=f"{self.store}/{_folder(self.run)}", do_next="Submit it again.")


def put(store: Store, packed: Packed, run: str, profile: str) -> str:
    """Record the plan of a run in the store, and return its address."""
    data = json.dumps({"part": packed.part, "profile": profile, "tasks": packed.tasks, "recipes": packed.recipes}, sort_keys=True).encode()
    path = f"{_folder(run)}{hashlib.sha256(data).hexdigest()[:20]}.json"
    store.write(path, data)
    return f"{store.uri}/{path}"


def read(address: str) -> Recorded:
    """The plan at an address; raises IntegrityError if it is damaged or of another version."""
    uri, rest = split_address(address, "runs")
    run = rest.partition("/")[0]
    return _read(open_store(uri), run, f"runs/{rest}")


def recorded(store: Store, run: str) -> list[Recorded]:
    """The undamaged plans of a run, sorted by its parts' names."""
    plans = []
    for entry in store.list(_folder(run)):
        with suppress(EdmError):
            plans.append(_read(store, run, entry.path))
    return sorted(plans, key=lambda plan: plan.part)


def grouped(plan: Plan) -> dict[str, list[Task]]:
    """The tasks of each trajectory by its name, such as E · seed 0; the tasks of no trajectory by the empty name."""
    groups = plan.trajectories()
    inside = {task.ref for group in groups.values() for task in group}
    shared = [task for task in plan if task.ref not in inside]
    return {"": shared, **{group[0].whose: group for group in groups.values()}}


def named(plan: Plan, group: Sequence[Task]) -> dict[Ref, str]:
    """The names of a trajectory's tasks, such as ep 200 · FD. The epoch comes first, since Kubeflow shows two dozen characters."""
    names = {task.ref: f"ep {task.subject.epoch} · {plan.what(task)}" if task.subject.recipe else task.title for task in group}
    times = Counter(names.values())
    return {
        task.ref: f"{names[task.ref]} · {task.short or task.subject.dataset}" if times[names[task.ref]] > 1 else names[task.ref]
        for task in group
    }


def wisher(run: str) -> str:
    """The name under which a run on Kubeflow requests snapshots. `edm2 run` of the same run may be live too, with requests of its own."""
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
