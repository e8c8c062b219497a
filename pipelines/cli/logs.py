"""edm2 logs"""

from __future__ import annotations

import click

from components.launcher.log_record import log_folder, read_record
from edm2core.events import readable
from edm2core.store.runs import find_run, load_plan
from pipelines.cli.options import store_option


@click.command(short_help="Print what a run's tasks printed.")
@click.argument("run")
@click.option("--task", default="", help="Only tasks whose title or key contains this.")
@store_option
def command(run: str, task: str, store: str) -> None:
    """Print what the tasks of RUN printed, each line after its task's title. RUN is a run's id in --store, or STORE/runs/ID."""
    record = find_run(run, store)
    where = record.store
    _, tasks = load_plan(where, record.id)
    printed = set()
    for one in tasks:
        if task.lower() not in f"{one.title} {one.ref}".lower():
            continue
        pods = log_folder(record.id, one)
        for entry in where.list(f"{record.folder}/logs/{one.stage}-{one.key}/"):
            if not entry.path.startswith(f"{pods}/"):
                for line in where.read(entry.path).decode(errors="replace").splitlines():
                    click.echo(f"[{one.title}] {readable(line)}")
        if pods not in printed:  # all snapshots of a training have one job
            printed.add(pods)
            for kept in read_record(where, pods):
                click.echo(f"[{one.title}] {readable(kept.text)}")
