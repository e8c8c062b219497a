"""The first task of Kubeflow's run: it records the plan and says which tasks are missing. Kubeflow skips the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from components.execute import committed
from components.launcher.profile import Profile
from components.record.plan_parameter import Packed, put, recorded
from components.report.component import report
from components.viewer_output import show_page
from edm2core.errors import EdmError
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store import open_store
from edm2core.store.base import Store, each
from edm2core.store.runs import Run
from edm2core.store.runs import record as record_run

if TYPE_CHECKING:
    from kfp.dsl import HTML, Metrics, Output

MISSING, DONE = "missing", "done"


def component(packed: str, run: str, store: str, profile: str, overview: Output[HTML], counts: Output[Metrics]) -> dict[str, str]:
    """Write the experiment and its plan into the run's folder, and list the tasks whose results are missing.

    Returns the plan's address as `plan`, and MISSING or DONE: as `Output` for all tasks, as `t<n>` for those of the nth trajectory.
    `overview` lists the missing results. If none is missing, it is the run's report, since no later task will write one.
    """
    plan = Packed.loads(packed)
    tasks = Plan.parse(plan.tasks, plan.recipes)
    try:
        where = open_store(store)
        address = put(where, plan, run, profile)
        whole = {task.ref: task for part in recorded(where, run) for task in part.plan}
        record_run(Run(run, where), plan.name, plan.experiment, replace(tasks, tasks=tuple(whole.values())), plan.absent)
        lacks = [task for task, there in zip(tasks, each(where, lambda task: _is_there(where, task), tasks), strict=True) if not there]
        if lacks:
            show_page(plan.name, _listed(tasks, lacks), overview)
            counts.log_metric("tasks done", float(len(tasks) - len(lacks)))
            counts.log_metric("tasks to do", float(len(lacks)))
        else:
            report(run, where, overview, counts)
    except EdmError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{len(tasks) - len(lacks)} of {len(tasks)} tasks are done.\n")
    if lacks and profile:
        sys.stdout.write(f"{_kind_of_job(profile)}\n")
    groups = tasks.trajectories().values()
    by_trajectory = {f"t{number}": _state(group, lacks) for number, group in enumerate(groups)}
    return {"Output": _state(tasks, lacks), "plan": address, **by_trajectory}


def _kind_of_job(profile: str) -> str:
    """Which kind of job the later tasks will start, and why, in words. They say more about a cluster that cannot be asked."""
    from components.launcher.cluster import Cluster  # the client of Kubernetes is slow to import

    try:
        return Cluster.connect(Profile.loads(profile)).choice
    except EdmError as error:
        return f"Which kind of job this cluster has could not be found out. {error}"


def _is_there(store: Store, task: Task) -> bool:
    """Whether the task's result is in the store. A damaged one counts as missing, so that its task runs and reports the damage."""
    try:
        return committed(store, task) is not None
    except EdmError:
        return False


def _state(tasks: Sequence[Task], lacks: Sequence[Task]) -> str:
    return MISSING if {task.ref for task in tasks} & {task.ref for task in lacks} else DONE


def _listed(tasks: Sequence[Task], lacks: Sequence[Task]) -> str:
    titles = "".join(f"<li>{escape(task.title)}</li>" for task in lacks)
    return f"<p>{len(tasks) - len(lacks)} of {len(tasks)} tasks are done. These are to do:</p><ul>{titles}</ul>"
