"""edm2 logs"""

from __future__ import annotations

import click

from edm2core.store import open_store
from edm2core.store.runs import load_plan
from pipelines.cli.options import store_option


@click.command(short_help="Print what a run's tasks printed.")
@click.argument("run")
@click.option("--task", default="", help="Only tasks whose title or key contains this.")
@store_option
def command(run: str, task: str, store: str) -> None:
    """Print what the tasks of RUN printed, each line after its task's title."""
    where = open_store(store)
    _, tasks = load_plan(where, run)
    for one in tasks:
        if task.lower() in f"{one.title} {one.ref}".lower():
            for entry in where.list(f"runs/{run}/logs/{one.stage}-{one.key}/"):
                for line in where.read(entry.path).decode(errors="replace").splitlines():
                    click.echo(f"[{one.title}] {line}")
