"""The last task of Kubeflow's run, which runs even if others failed: it stops jobs that nobody follows, and writes the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.launcher.profile import Profile
from components.launcher.spec import job_name
from components.record.plan_parameter import recorded, wisher
from components.report.mlflow_server import MlflowServer
from components.report.write import recorded_outcomes, write_report
from edm2core.errors import EdmError
from edm2core.plan.tasks import Task
from edm2core.report import Report, RunInfo, collect
from edm2core.report.conclusions import conclusions
from edm2core.report.results import label, rows
from edm2core.report.tracked import tracked
from edm2core.store import open_store
from edm2core.store.base import Store
from edm2core.store.runs import Run, load_absent, load_plan
from edm2core.store.runs import record as record_run
from edm2core.store.wanted_epochs import unwant

if TYPE_CHECKING:
    from kfp.dsl import HTML, Metrics, Output


def component(run: str, store: str, profile: str, part: str, page: Output[HTML], latest: Output[Metrics]) -> None:
    """Write the report of the whole run, stop the part's jobs that nobody follows, and withdraw its requests for snapshots.

    `page` gets the report, `latest` each metric's number at the last epoch. The MLflow server of the environment, if any, gets all results.
    """
    try:
        where = open_store(store)
        plans = recorded(where, run)
        own = {task.ref: task for plan in plans if plan.part == part for task in plan.plan}
        _let_go(list(own.values()), run, store, profile)
        unwant(where, own.values(), wisher(run))
        _gather(where, run, {task.ref: task for plan in plans for task in plan.plan})
        report(run, where, page, latest)
    except EdmError as error:
        sys.exit(str(error))


def report(run: str, where: Store, page: Any, latest: Any) -> None:
    """Write the report of a recorded run, and fill the artifacts `page` and `latest`."""
    name, tasks = load_plan(where, run)
    record = Run(run, where)
    outcomes = recorded_outcomes(record)
    written = write_report(record, name, tasks, outcomes, f"edm2 report {run} --store {where.uri}", ended=time.time())
    record.end()
    Path(page.path).write_bytes(where.read(f"{record.folder}/report.html"))
    page.metadata["location"] = f"{where.uri}/{record.folder}/report.html"
    page.metadata["verdict"] = "\n".join(conclusions(written))
    for what, value in _latest(written).items():
        latest.log_metric(what, value)
    try:
        if server := MlflowServer.named():
            server.log(name, tracked(collect(name, tasks, where, RunInfo(outcomes), pictures=False), run, {}), ended=True)
    except EdmError as error:  # a fault of the tracker must not fail the experiment
        sys.stdout.write(f"{error}\n")


def _let_go(tasks: Sequence[Task], run: str, store: str, profile: str) -> None:
    """Suspend those jobs of the tasks that nobody follows. If that fails, say so and go on: the report matters more."""
    if not profile:
        return
    from components.launcher.cluster import Cluster  # the client of Kubernetes is slow to import
    from components.launcher.followers import suspend_unfollowed

    known = Profile.loads(profile)
    try:
        names = {job_name(task, store) for task in tasks}
        suspend_unfollowed(Cluster.connect(known), known, run, names, lambda line: print(line, flush=True))  # noqa: T201
    except EdmError as error:
        sys.stdout.write(f"Jobs that nobody follows were not looked for. {error}\n")


def _gather(where: Store, run: str, known: dict[Any, Task]) -> None:
    """Complete the run's plan, in case several parts have begun at once and each has written it without the others' tasks."""
    name, plan = load_plan(where, run)
    if lacking := [task for ref, task in known.items() if ref not in {there.ref for there in plan}]:
        record = Run(run, where)
        text = where.read(f"{record.folder}/experiment.yaml").decode(errors="replace")
        record_run(record, name, text, replace(plan, tasks=(*plan, *lacking)), load_absent(record))


def _latest(written: Report) -> dict[str, float]:
    """The number of each metric at the last epoch of a training that has one."""
    numbers = {}
    for row in rows(written):  # by epoch
        if row.recipe and row.value is not None:
            ema = f" · EMA {row.ema}" if row.ema not in (None, "fixed") else ""
            numbers[f"{row.recipe} · seed {row.seed}{ema} · {label(row.metric)}"] = row.value
    return numbers
