"""Runs an experiment: resolves its sources, plans it, does its tasks and writes its report."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
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
from edm2core.plan.experiment import Experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.provenance.made_by import made_by
from edm2core.report import Outcome, RunInfo, collect
from edm2core.report.conclusions import conclusions
from edm2core.report.recheck import rechecks
from edm2core.store import open_store
from edm2core.store.results import load, manifests
from edm2core.store.runs import Run, add_tasks, open_run
from edm2core.store.wanted_epochs import unwant
from edm2core.worker.signals import handled_by
from pipelines.estimate import Estimate, estimates
from pipelines.inputs.user_files import absent, bring_here, planned, put_code, upload
from pipelines.run.console import View
from pipelines.run.live_report import live_report
from pipelines.run.places import Place
from pipelines.run.refusals import continued, lost_snapshots, refuse_continued, refuse_lost
from pipelines.run.remaining import Remaining
from pipelines.run.task_scheduler import TaskChange, run_tasks
from pipelines.run.terminal import discard_output
from pipelines.run.tracker import Tracker


def run(
    experiment: Experiment,
    place: Place,
    console: Console,
    only: str | None = None,
    train_again: bool = False,
    accept_code: bool = False,
    command: str = "",
) -> Run:
    """Run an experiment, or `only` one of its results (stage/key) and all that it stands on; returns its run.

    `command` is what was typed, for the report.

    Snapshots that the store has lost are made again only with `train_again`. Trainings go on from states that differing code made only with
    `accept_code`. Without these, both raise InputError. Raises Interrupted after a Ctrl-C or SIGTERM, and EdmError if a task failed. The
    report is written in either case.
    """
    server = MlflowServer.named()
    tasks, left_out = planned(experiment, accept_code), absent(experiment)
    if only:
        tasks = _standing_on(tasks, only, experiment.name)
    store = open_store(place.store)
    if not train_again:
        refuse_lost(lost_snapshots(tasks, store), store)
    there = manifests(store, tasks)
    for line in made_by(there.values()).lines:
        console.print(line, style="yellow")
    if place.shares_disk and not accept_code:  # on a cluster the code in the jobs' image decides
        refuse_continued(continued(tasks, there, store), store)
    record = open_run(store, experiment, tasks, left_out, console.print)
    (bring_here if place.shares_disk else upload)(tasks, store, console.print)
    put_code(experiment, tasks, store)
    backend = place.backend(record)
    stop = threading.Event()

    def costs(of: Sequence[Task]) -> dict[Ref, Estimate]:
        return estimates(of, lambda ref: load(store, ref))

    remaining = Remaining(tasks, costs(tasks), place.jobs)
    view = View(tasks, console, remaining)
    tracker = Tracker(server, experiment.name, record, tasks, view.say) if server else None

    def show(task: Task, event: dict[str, Any]) -> None:
        view.event(task, event)
        if tracker:
            tracker.event(task, event)
        if event["kind"] not in ("progress", "line"):
            record.log_of(task, event)
        else:
            record.share()

    worked_on: set[Ref] = set()

    def work(task: Task) -> bool:
        manifest, there = execute(task, store, backend, place.spec(task), run=record.id, show=show, stop=stop)
        view.made(task, manifest)
        if not there:
            worked_on.add(work_ref(task))
        # A training that this run has started may have made its next snapshot before that task began: this is no reused result.
        return there and work_ref(task) not in worked_on

    def changed(task: Task, outcome: TaskChange) -> None:
        view.changed(task, outcome)
        if tracker:
            tracker.changed()
        outcomes[task.ref] = outcome
        if outcome.state not in ("waiting", "reused"):
            news()
        record.log_of(task, {"kind": outcome.state, "error": str(outcome.error or "")})

    outcomes: dict[Ref, TaskChange] = {}

    def write_so_far() -> None:
        write_report(record, experiment.name, tasks, _reported(record, tasks, dict(outcomes)), redacted(command), running=True)

    console.print(f"report, while it runs: {store.uri}/{record.folder}/report.html")
    with _interruptible(stop, backend, place.grace_s, view.say), live_report(write_so_far) as news:
        try:
            with view.shown:
                outcomes |= run_tasks(tasks, work, place.jobs, stop, changed)
            if experiment.recheck and not only and not stop.is_set():
                done = [task for task in tasks if outcomes[task.ref].state in ("done", "reused")]
                again = rechecks(collect(experiment.name, done, store, RunInfo()), experiment.recheck)
                tasks = replace(tasks, tasks=(*tasks, *again))
                add_tasks(record, experiment.name, tasks, left_out, console.print)
                view.add(again)
                remaining.add(again, costs(tasks))
                with view.shown:
                    outcomes |= run_tasks([*done, *again], work, place.jobs, stop, changed)
        finally:
            (backend.stop_all if stop.is_set() else backend.close)(place.grace_s)
            unwant(store, tasks, record.id)
    console.print(view.summary(), style="bold")
    reported = _reported(record, tasks, outcomes)
    report = write_report(record, experiment.name, tasks, reported, redacted(command), ended=time.time())
    for line in conclusions(report):
        console.print(line, markup=False, highlight=False)
    if tracker:
        tracker.close(tasks, reported)
    record.close()
    record.end()
    if stop.is_set():
        raise Interrupted("Stopped on request; what is finished is in the store.", do_next="Run the same command again to go on.")
    _raise_failures(record, tasks, outcomes)
    return record


def _standing_on(plan: Plan, only: str, name: str) -> Plan:
    """The part of the plan that holds the task with the address `only`, and all that this task needs."""
    task = next((task for task in plan if str(task.ref) == only), None)
    if task is None:
        do_next = "`edm2 plan` lists those it has. Where settings, data or the code's version differ, so do keys."
        if own := sorted({f"'{package}' ({content})" for task in plan for package, content in task.code.items()}):
            do_next += f" So do they where own code differs; here it is {', '.join(own)}."
            do_next += " `edm2 reproduce RESULT --to FOLDER` writes out the code that made a result."
        raise InputError(f"The plan of {name} has no result {only}.", where="--only", do_next=do_next)
    return replace(plan, tasks=tuple(plan.standing_on([task])))


def _reported(record: Run, plan: Plan, outcomes: dict[Ref, TaskChange]) -> dict[Ref, Outcome]:
    """How each task ended, why, and where its log is if it failed."""
    reported = {}
    for ref, outcome in outcomes.items():
        why = str(outcome.error or ("It had not begun when the run was stopped." if outcome.state == "waiting" else ""))
        reported[ref] = Outcome(outcome.state, why, _log_of(record, plan.by_ref[ref]) if outcome.state == "failed" else "")
    return reported


def _log_of(record: Run, task: Task) -> str:
    """Where a task's output is: a file of this machine, or the kept log of a cluster's job; empty if it printed nothing."""
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


@contextmanager
def _interruptible(stop: threading.Event, backend: Backend, grace_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """A context in which the first signal to stop (Ctrl-C, SIGTERM, a closed terminal) saves and stops all work; the second kills it."""
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            discard_output(*terminals)  # a write to the closed terminal would be an error, and end what is being saved
            if stop.is_set():  # a closed terminal sends SIGHUP, and its shell may send it again
                return
        if stop.is_set():
            backend.kill_all()
            os._exit(130)
        stop.set()
        threading.Thread(target=backend.stop_all, args=(grace_s,), daemon=True).start()
        threading.Thread(target=say, args=("Saving and stopping; once more to stop at once.",), daemon=True).start()

    mine = threading.current_thread() is threading.main_thread()  # Python lets no other thread handle signals
    with handled_by(handle) if mine else nullcontext():
        yield
