"""edm2 plan"""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from edm2core.config.experiment import load_experiment
from edm2core.plan import plan
from edm2core.store import open_store
from edm2core.store.results import load
from pipelines.cli.options import experiment_argument, store_option
from pipelines.sources import resolve


@click.command(short_help="List an experiment's tasks and what is in the store already.")
@experiment_argument
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON, one a line, as the stages take them.")
def command(experiment: Path, store: str, as_json: bool) -> None:
    """List the tasks of EXPERIMENT with their keys, and which results are in the store already. Nothing is run."""
    read = load_experiment(experiment)
    tasks = plan(read, resolve(read))
    if as_json:
        for task in tasks:
            click.echo(json.dumps(task.to_json()))
        return
    where = open_store(store)
    table = Table("", "task", "key", box=None, pad_edge=False)
    there = 0
    for task in tasks:
        done = load(where, task.ref) is not None
        there += done
        table.add_row("✓" if done else "·", task.title, str(task.ref), style="dim" if done else "")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{len(tasks)} tasks, {there} of them in {where.uri} already.", soft_wrap=True)
