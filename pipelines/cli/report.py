"""edm2 report"""

from __future__ import annotations

import shlex
import sys

import click

from components.report.write import recorded_outcomes, write_report
from edm2core.store import open_store
from edm2core.store.runs import Run, load_plan
from pipelines.cli.options import store_option


@click.command(short_help="Write the report of a run again.")
@click.argument("run")
@store_option
def command(run: str, store: str) -> None:
    """Write the report of RUN again, from what is in the store now."""
    where = open_store(store)
    name, tasks = load_plan(where, run)
    record = Run(run, where)
    write_report(record, name, tasks, recorded_outcomes(record), shlex.join(["edm2", *sys.argv[1:]]))
    click.echo(f"report: {where.uri}/{record.folder}/report.html")
