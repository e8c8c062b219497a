"""Writes a run's report into its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edm2core.errors import MissingError
from edm2core.manifest import Ref
from edm2core.plan import Task
from edm2core.report import Outcome, RunInfo, collect, write
from edm2core.store.runs import Run


def write_report(run: Run, name: str, tasks: list[Task], outcomes: Mapping[Ref, Outcome], command: str) -> None:
    """report.html, results.json and results.csv from what is in the store; tasks without a result show as such.

    `command` is what a person would type to get it again.
    """
    try:
        experiment = run.store.read(f"{run.folder}/experiment.yaml").decode()
    except MissingError:
        experiment = ""
    with tempfile.TemporaryDirectory() as folder:
        write(collect(name, tasks, run.store, RunInfo(outcomes, experiment, command)), Path(folder))
        for path in Path(folder).iterdir():
            run.store.write(f"{run.folder}/{path.name}", path.read_bytes())
