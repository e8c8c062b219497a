"""edm2 report"""

from __future__ import annotations

import shlex
import sys
from typing import BinaryIO

import click

from components.report.write import recorded_outcomes, write_report
from edm2core.store import open_store
from edm2core.store.runs import NOTES, Run, load_plan
from pipelines.cli.options import store_option


@click.command(short_help="Write the report of a run again.")
@click.argument("run")
@store_option
@click.option("--notes", type=click.File("rb"), help="A Markdown file that becomes the run's notes; - reads them.")
def command(run: str, store: str, notes: BinaryIO | None) -> None:
    """Write the report of RUN again, from what is in the store now.

    The page shows the run's notes, runs/RUN/notes.md in the store, which nothing but --notes or your editor changes.
    """
    where = open_store(store)
    name, tasks = load_plan(where, run)
    record = Run(run, where)
    if notes:
        where.write(f"{record.folder}/{NOTES}", notes.read())
    write_report(record, name, tasks, recorded_outcomes(record), shlex.join(["edm2", *sys.argv[1:]]))
    click.echo(f"report: {where.uri}/{record.folder}/report.html")
