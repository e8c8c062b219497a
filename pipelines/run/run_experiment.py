"""Runs an experiment: resolve sources, plan, do the tasks, write the report."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from components.execute import TaskFailedError, execute
from components.launcher.log_store import log_folder
from components.launcher.spec import Backend, work_ref
from components.report.mlflow_server import MlflowServer
from components.report.write import write_report
from edm2core.addresses import redacted
from edm2core.errors import EdmError, InputError, Interrupted
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan, plan
from edm2core.plan.tasks import Task
from edm2core.provenance.made_by import made_by
from edm2core.report import Outcome, RunInfo, collect
from edm2core.report.recheck import rechecks
from edm2core.store import open_store
from edm2core.store.results import load, manifests
from edm2core.store.runs import Run, add_tasks, open_run
from edm2core.store.wanted import unwant
from edm2core.worker.signals import to_stop
from pipelines.estimate import Estimate, estimates
from pipelines.inputs.sources import absent, bring_here, resolve, upload
from pipelines.run import other_science
from pipelines.run.console import View
from pipelines.run.live_report import LiveReport
from pipelines.run.lost_snapshots import gone, refuse
from pipelines.run.places import Place
from pipelines.run.remaining import Remaining
from pipelines.run.task_scheduler import TaskChange, run_tasks
from pipelines.run.tracker import Tracker

NEVER_BEGUN = "It had not begun when the run was stopped."


def run(path: Path, place: Place, console: Console, only: str | None = None, train_again: bool = False, accept_code: bool = False) -> Run:
    """Run an experiment, or `only` one of its results (stage/key) and what that stands on; returns its run, with the report written.

    Snapshots that the store has lost are made again only if `train_again`, and trainings go on from states by other science only if
    `accept_code`; else they raise InputError.
    Raises Interrupted after a Ctrl-C or SIGTERM, and EdmError when a task failed: the report is written all the same.
    """
    experiment, server = load_experiment(path), MlflowServer.named()
    tasks, left_out = plan(experiment, resolve(experiment)), absent(experiment)
    if only:
        tasks = replace(tasks, tasks=tuple(_standing_on(tasks, only, path)))
    store = open_store(place.store)
    if not train_again:
        refuse(gone(tasks, store), store)
    there = manifests(store, tasks)
    for line in made_by(there.values()).lines:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    if accept_code:
        tasks = other_science.accepting(tasks)
    elif place.shares_disk:  # else it is for the science of the jobs' image to say
        other_science.refuse(other_science.continued(tasks, there, store), store)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    record = open_run(store, experiment, tasks, left_out, say)
    (bring_here if place.shares_disk else upload)(tasks, store, say)
    backend = place.backend(record)
    stop = threading.Event()

    def costs(of: Sequence[Task]) -> dict[Ref, Estimate]:
        return estimates(of, lambda ref: load(store, ref))

    remaining = Remaining(tasks, costs(tasks), place.jobs)
    view = View(tasks, console, remaining)
    tracker = Tracker(server, experiment.name, record, tasks, lambda line: view.say(line)) if server else None

    def show(task: Task, event: dict[str, Any]) -> None:
        view.event(task, event)
        if tracker:
            tracker.event(task, event)
        if event["kind"] not in ("progress", "line"):
            record.log({**event, "task": str(task.ref), "title": task.title})
        else:
            record.share()

    worked_on: set[Ref] = set()

    def work(task: Task) -> bool:
        manifest, there = execute(task, store, backend, place.spec(task), run=record.id, show=show, stop=stop)
        view.made(task, manifest)
        if not there:
            worked_on.add(work_ref(task))
        # A training that this run started may have made the next snapshot before that was asked for.
        return there and work_ref(task) not in worked_on

    def changed(task: Task, outcome: TaskChange) -> None:
        view.changed(task, outcome)
        if tracker:
            tracker.changed()
        outcomes[task.ref] = outcome
        if outcome.state not in ("waiting", "reused"):
            live.news()
        record.log({"kind": outcome.state, "task": str(task.ref), "title": task.title, "error": str(outcome.error or "")})

    command = redacted(shlex.join(["edm2", *sys.argv[1:]]))
    outcomes: dict[Ref, TaskChange] = {}

    def write_so_far() -> None:
        known = dict(outcomes)
        write_report(record, experiment.name, tasks, _reported(record, tasks, known), command, running=True)

    live = LiveReport(write_so_far)
    console.print(f"report, while it runs: {store.uri}/{record.folder}/report.html", soft_wrap=True, markup=False)
    with _interruptible(stop, backend, place.grace_s, view), live:
        try:
            with view:
                outcomes |= run_tasks(tasks, work, place.jobs, stop, changed)
            if experiment.recheck and not only and not stop.is_set():
                done = [task for task in tasks if outcomes[task.ref].state in ("done", "reused")]
                again = rechecks(collect(experiment.name, done, store, RunInfo()), experiment.recheck)
                tasks = replace(tasks, tasks=(*tasks, *again))
                add_tasks(record, experiment.name, tasks, left_out, say)
                view.add(again)
                remaining.add(again, costs(tasks))
                with view:
                    outcomes |= run_tasks([*done, *again], work, place.jobs, stop, changed)
        finally:
            (backend.stop_all if stop.is_set() else backend.close)(place.grace_s)
            unwant(store, tasks, record.id)
    console.print(view.summary(), style="bold", markup=False, soft_wrap=True)
    reported = _reported(record, tasks, outcomes)
    write_report(record, experiment.name, tasks, reported, command, ended=time.time())
    if tracker:
        tracker.close(tasks, reported)
    record.close()
    record.end()
    if stop.is_set():
        raise Interrupted("Stopped on request; what is finished is in the store.", do_next="Run the same command again to go on.")
    _raise_failures(record, tasks, outcomes)
    return record


def _standing_on(plan: Plan, only: str, path: Path) -> list[Task]:
    """The task of that address and all that it needs, in the plan's order."""
    by_name = {str(task.ref): task for task in plan}
    if only not in by_name:
        raise InputError(
            f"The plan of {path} has no result {only}.",
            where="--only",
            do_next="`edm2 plan` lists those it has. Where settings, data or the code's version differ, so do keys.",
        )
    return plan.standing_on([by_name[only]])


def _reported(record: Run, tasks: Sequence[Task], outcomes: dict[Ref, TaskChange]) -> dict[Ref, Outcome]:
    logs = {task.ref: _log_of(record, task) for task in tasks if task.ref in outcomes and outcomes[task.ref].state == "failed"}
    why = {"waiting": NEVER_BEGUN}
    return {ref: Outcome(o.state, str(o.error or why.get(o.state, "")), logs.get(ref, "")) for ref, o in outcomes.items()}


def _log_of(record: Run, task: Task) -> str:
    """Where a task's output is: a file here, or what was kept of a cluster's job; empty where it printed nothing."""
    path, pods = record.log_path(task), log_folder(record.id, task)
    if path.exists() and path.stat().st_size:
        return str(path)
    return f"{record.store.uri}/{pods}" if any(record.store.list(f"{pods}/")) else ""


def _raise_failures(record: Run, tasks: Sequence[Task], outcomes: dict[Ref, TaskChange]) -> None:
    failed = [(task, error) for task in tasks if (error := outcomes[task.ref].error) is not None]
    if not failed:
        return
    task, error = failed[0]
    skipped = sum(outcome.state == "skipped" for outcome in outcomes.values())
    lines = error.tail if isinstance(error, TaskFailedError) else ""
    others = f" ({len(failed)} task{'s' * (len(failed) > 1)} failed, {skipped} could not start)" if len(failed) + skipped > 1 else ""
    raise EdmError(f"{error.what}{others}{lines}", where=_log_of(record, task), do_next=error.do_next)


class _interruptible:  # noqa: N801
    """The first signal to stop (Ctrl-C, SIGTERM, a closed terminal) stops and saves, the second ends every process at once."""

    def __init__(self, stop: threading.Event, backend: Backend, grace_s: float, view: View) -> None:
        self._stop, self._backend, self._grace_s, self._view = stop, backend, grace_s, view
        self._before: dict[int, Any] = {}
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def __enter__(self) -> None:
        for number in to_stop():
            self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _print_nowhere(self._terminals)
            if self._stop.is_set():  # a shell passes on to its jobs what the terminal has told them already
                return
        if self._stop.is_set():
            self._backend.kill_all()
            os._exit(130)
        self._stop.set()
        threading.Thread(target=self._backend.stop_all, args=(self._grace_s,), daemon=True).start()
        threading.Thread(target=self._view.say, args=("Saving and stopping; once more to stop at once.",), daemon=True).start()


def _print_nowhere(streams: Iterable[int]) -> None:
    """Print no more to a terminal that is gone: every write there is an error, which would end what is being saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
