"""Writes a run's report into its folder."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task
from edm2core.report import Outcome, Report, RunInfo, collect, write
from edm2core.store.base import file_record
from edm2core.store.runs import NOTES, Run, load_absent
from edm2core.store.summary import Summary, change

ENDS = ("done", "reused", "failed", "skipped", "interrupted")
STANDS = ("waiting", "running")
SEEN = "reports"  # folder of a run; the name of each empty file in it is the number of results that a report has seen


def write_report(
    run: Run,
    name: str,
    tasks: Sequence[Task],
    outcomes: Mapping[Ref, Outcome],
    command: str,
    *,
    running: bool = False,
    ended: float | None = None,
) -> Report:
    """Write report.html, results.json, overview.json and the tables as CSV from what is in the store.

    `command` is what a person would type to get it again. `ended` is when the run ended, in seconds since 1970, if its summary does not say
    so yet. The page contains the user's notes.md, if the run's folder has one.

    The parts of a run may write its report at the same time. The report that has seen the most results has to stay. So each writer records
    how many results it has seen before it writes, and writes again if another writer has recorded more since.
    """
    experiment, notes = _text(run, "experiment.yaml"), _text(run, NOTES)
    started, finished = _times(run, running, ended)
    info = RunInfo(outcomes, experiment, command, started, finished, running, load_absent(run), notes)
    while True:
        before = _seen(run)
        report = collect(name, tasks, run.store, info)
        done = sum(result.manifest is not None for result in report.results.values())
        if not running:
            run.store.create(f"{run.folder}/{SEEN}/{done:06d}", b"")
        _commit(run, report)
        if running or all(others <= done for others in _seen(run) - before):
            return report


def _commit(run: Run, report: Report) -> None:
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        write(report, Path(folder))
        for path in Path(folder).iterdir():
            run.store.write(f"{run.folder}/{path.name}", path.read_bytes())
            files[path.name] = file_record(path)
    change(run.store, run.id, states=dict(Counter(result.outcome.state for result in report.results.values())), files=files)


def _times(run: Run, running: bool, ended: float | None) -> tuple[str, str]:
    """When a run was last started, and when it ended, as ISO 8601; "" if that is unknown or has not happened."""
    try:
        summary = Summary.load(run.store, run.id)
    except (MissingError, IntegrityError):  # an earlier version wrote none; `edm2 runs` names a damaged one
        return "", ""
    end = None if running else ended or summary.ended
    return _iso(summary.asked), _iso(end) if end else ""


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _seen(run: Run) -> set[int]:
    """The numbers of results that the run's reports have seen."""
    return {int(entry.path.rpartition("/")[2]) for entry in run.store.list(f"{run.folder}/{SEEN}/")}


def _text(run: Run, file: str) -> str:
    try:
        return run.store.read(f"{run.folder}/{file}").decode(errors="replace")
    except MissingError:
        return ""


@dataclass(frozen=True)
class Record:
    """What a run's events say: how each task ended when it was last tried, or where it stands; and which files cannot be read."""

    outcomes: dict[Ref, Outcome]
    damaged: tuple[str, ...] = ()


def read_outcomes(run: Run, *, running: bool = False) -> Record:
    """What a run's events say of the tasks that were tried; of a live run also where they stand."""
    states = (*ENDS, *STANDS) if running else ENDS
    found: dict[Ref, Outcome] = {}
    events, damaged = run.events()
    for event in events:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            if event["kind"] in states and "error" in event:
                ref = Ref.parse(event["task"])
                found[ref] = Outcome(event["kind"], event["error"], f"{run.store.uri}/{run.folder}/logs/{ref.stage}-{ref.key}")
    return Record(found, tuple(map(str, damaged)))


def recorded_outcomes(run: Run, *, running: bool = False) -> dict[Ref, Outcome]:
    """How the run's tasks ended, or where they stand, by its events (see `read_outcomes`)."""
    return read_outcomes(run, running=running).outcomes
