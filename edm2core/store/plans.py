"""Plans of runs as they are recorded. A plan says what a run needs, so it carries a digest and is used only if it verifies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edm2core.errors import IntegrityError
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, unverified
from edm2core.store.base import Store
from edm2core.store.sealed import read_sealed, sealed

EARLIER = ("name", "absent", "tasks")  # the fields of a plan that was written without a digest
MEND_PLAN = "Run its experiment again, which records it anew, or forget the run (edm2 runs rm)."


@dataclass(frozen=True)
class Recorded:
    """A run's plan as it was recorded. `absent` says of each metric that it leaves out, by its name in results, why."""

    name: str
    plan: Plan
    absent: dict[str, str]


def plan_path(run: str) -> str:
    return f"runs/{run}/plan.json"


def write_plan(store: Store, run: str, name: str, tasks: Iterable[Task], absent: Mapping[str, str]) -> bytes:
    """Record a run's plan. Returns the bytes that were written."""
    plan = Plan.of(tasks)
    data = sealed({"name": name, "absent": dict(absent), "recipes": plan.stored_recipes(), "tasks": [task.to_json() for task in plan]})
    store.write(plan_path(run), data)
    return data


def read_plan(store: Store, run: str) -> Recorded:
    """A run's plan. Raises MissingError if it is not there, IntegrityError if it is damaged or of another version of edm2."""

    def parse(values: dict[str, Any]) -> Recorded:
        plan = Plan.parse(values["tasks"], values.get("recipes"))
        if "recipes" not in values and (changed := unverified(plan)):  # it may have no digest: then its tasks' keys verify it
            raise ValueError(f"it has been changed since it was written: {changed[0].ref} is not that task's key")
        return Recorded(str(values["name"]), plan, dict(values.get("absent", {})))

    try:
        return read_sealed(store, plan_path(run), parse, EARLIER)
    except IntegrityError as error:
        what, where = f"The plan of {run} cannot be read. {error.what}", f"{store.uri}/{plan_path(run)}"
        raise IntegrityError(what, where=where, do_next=error.do_next or MEND_PLAN) from None
