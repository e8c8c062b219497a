"""Writes a run's report into its folder."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edm2core.errors import MissingError
from edm2core.manifest import Ref
from edm2core.plan import Task
from edm2core.report import Outcome as Reported
from edm2core.report import RunInfo, collect, write
from pipelines.runs import Run
from pipelines.schedule import Outcome


def write_report(run: Run, name: str, tasks: list[Task], outcomes: Mapping[Ref, Outcome]) -> None:
    """report.html, results.json and results.csv from what is in the store; tasks without a result show as such."""
    reported = {
        task.ref: Reported(outcome.state, str(outcome.error or ""), str(run.log_path(task)) if outcome.state == "failed" else "")
        for task in tasks
        if (outcome := outcomes.get(task.ref))
    }
    try:
        experiment = run.store.read(f"{run.folder}/experiment.yaml").decode()
    except MissingError:
        experiment = ""
    info = RunInfo(reported, experiment, shlex.join(["edm2", *sys.argv[1:]]))
    with tempfile.TemporaryDirectory() as folder:
        write(collect(name, tasks, run.store, info), Path(folder))
        for path in Path(folder).iterdir():
            run.store.write(f"{run.folder}/{path.name}", path.read_bytes())
