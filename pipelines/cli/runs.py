"""edm2 runs"""

from __future__ import annotations

import click

from edm2core.store import open_store
from edm2core.store.runs import list_runs, load_plan
from pipelines.cli.options import store_option


@click.group(invoke_without_command=True, short_help="List the runs in a store, or forget one.")
@store_option
@click.pass_context
def command(context: click.Context, store: str) -> None:
    """List the runs in a store."""
    if context.invoked_subcommand is None:
        for run in list_runs(open_store(store)):
            click.echo(run)


@command.command()
@click.argument("run")
@store_option
def rm(run: str, store: str) -> None:
    """Forget RUN: its record goes now, what only it needed at the next `edm2 gc`."""
    where = open_store(store)
    load_plan(where, run)
    for entry in list(where.list(f"runs/{run}/")):
        where.delete(entry.path)
    click.echo(f"{run} is forgotten; `edm2 gc` removes what only it needed.")
