"""Writes a run's report into its folder."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.body import wisher
from components.report.mlflow_server import MlflowServer
from edm2core.errors import EdmError, MissingError
from edm2core.manifest import Ref
from edm2core.plan import Task
from edm2core.report import Outcome, RunInfo, collect, write
from edm2core.report.tracked import tracked
from edm2core.stages.wanted import unwant
from edm2core.store import open_store
from edm2core.store.base import file_record
from edm2core.store.runs import NOTES, Run, load_absent, load_plan
from edm2core.store.summary import change

ENDS = ("done", "reused", "failed", "skipped", "interrupted")
STANDS = ("waiting", "running")


def write_report(run: Run, name: str, tasks: list[Task], outcomes: Mapping[Ref, Outcome], command: str, *, running: bool = False) -> None:
    """report.html, results.json and its tables as CSV from what is in the store; tasks without a result show as such.

    `command` is what a person would type to get it again. The user's notes.md, if the run's folder has one, is part of the page.
    """
    experiment, notes = _text(run, "experiment.yaml"), _text(run, NOTES)
    info = RunInfo(outcomes, experiment, command, running=running, absent=load_absent(run), notes=notes)
    report = collect(name, tasks, run.store, info)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        write(report, Path(folder))
        for path in Path(folder).iterdir():
            run.store.write(f"{run.folder}/{path.name}", path.read_bytes())
            files[path.name] = file_record(path)
    change(run.store, run.id, states=dict(Counter(result.outcome.state for result in report.results.values())), files=files)


def _text(run: Run, file: str) -> str:
    try:
        return run.store.read(f"{run.folder}/{file}").decode(errors="replace")
    except MissingError:
        return ""


@dataclass(frozen=True)
class Record:
    """How each task ended when it was last tried, by a run's own events, or stands; and which of the events cannot be read."""

    outcomes: dict[Ref, Outcome]
    damaged: tuple[str, ...] = ()


def read_outcomes(run: Run, *, running: bool = False) -> Record:
    """What a run's record says of its tasks, or where it goes on how they stand; what was never tried is left out."""
    states = (*ENDS, *STANDS) if running else ENDS
    found: dict[Ref, Outcome] = {}
    events, damaged = run.events()
    for event in events:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            if event["kind"] in states and "error" in event:
                ref = Ref.parse(event["task"])
                found[ref] = Outcome(event["kind"], event["error"], f"{run.store.uri}/{run.folder}/logs/{ref.stage}-{ref.key}")
    return Record(found, tuple(damaged))


def recorded_outcomes(run: Run, *, running: bool = False) -> dict[Ref, Outcome]:
    """The outcomes alone."""
    return read_outcomes(run, running=running).outcomes


def finish(run: str, store: str, page: str) -> None:
    """The end of a run that Kubeflow drives: its wishes for snapshots are taken back, its report is written, also to the file `page`.

    Where the environment names an MLflow server, it is told what there is.
    """
    try:
        where = open_store(store)
        name, tasks = load_plan(where, run)
        unwant(where, tasks, wisher(run))
        record = Run(run, where)
        outcomes = recorded_outcomes(record)
        write_report(record, name, tasks, outcomes, f"edm2 report {run} --store {store}")
        record.end()
        Path(page).write_bytes(where.read(f"{record.folder}/report.html"))
    except EdmError as error:
        sys.exit(str(error))
    try:
        if server := MlflowServer.named():
            report = collect(name, tasks, where, RunInfo(outcomes), pictures=False)
            server.log(name, tracked(report, run, {}), ended=True)
    except EdmError as error:  # a tracker's trouble is never the experiment's
        sys.stdout.write(f"{error}\n")
