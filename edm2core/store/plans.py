"""Plans of runs as they are recorded. A plan says what a run needs, so it carries a digest and is used only if it verifies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edm2core.errors import EdmError, IntegrityError, MissingError
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store.base import Store
from edm2core.store.sealed import is_sealed, sealed, unseal

EARLIER = ("name", "absent", "tasks")  # the fields of a plan that was written without a digest
MEND_PLAN = "Run its experiment again, which records it anew, or forget the run (edm2 runs rm)."


@dataclass(frozen=True)
class Recorded:
    """A run's plan as it was recorded. `absent` says of each metric that it leaves out, by its name in results, why."""

    name: str
    plan: Plan
    absent: dict[str, str]
    sealed: bool  # whether it carried its digest


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
    try:
        data = store.read(plan_path(run))
        values = unseal(data, EARLIER)
        plan = Plan.parse(values["tasks"], values.get("recipes"))
        return Recorded(str(values["name"]), plan, dict(values.get("absent", {})), is_sealed(data))
    except MissingError:
        raise
    except EdmError as error:
        if not (isinstance(error, IntegrityError) or error.permanent):
            raise  # the store is in trouble, not this plan
        why, mend = error.what, MEND_PLAN if isinstance(error, IntegrityError) else error.do_next
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why, mend = f"It is damaged, or of another version of edm2: {error}.", MEND_PLAN
    raise IntegrityError(f"The plan of {run} cannot be read. {why}", where=f"{store.uri}/{plan_path(run)}", do_next=mend)
