"""edm2 report"""

from __future__ import annotations

import click

from edm2core.store import open_store
from pipelines.cli.options import store_option
from pipelines.report import write_report
from pipelines.runs import Run, load_plan


@click.command(short_help="Write the report of a run again.")
@click.argument("run")
@store_option
def command(run: str, store: str) -> None:
    """Write the report of RUN again, from what is in the store now."""
    where = open_store(store)
    name, tasks = load_plan(where, run)
    record = Run(run, where)
    write_report(record, name, tasks, {})
    click.echo(f"report: {where.uri}/{record.folder}/report.html")
