"""edm2 runs"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import click

from edm2core.store import find_store
from edm2core.store.plans import MEND_PLAN
from edm2core.store.runs import find_run
from edm2core.store.summary import Listed, epochs_in_words, listing
from pipelines.cli.options import store_option


@click.group(invoke_without_command=True, short_help="List the runs in a store, or forget one.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line instead of a table.")
@click.pass_context
def command(context: click.Context, store: str, as_json: bool) -> None:
    """List the runs in a store, the last started first: their state, how many of their tasks are done, and what they are of."""
    if context.invoked_subcommand is not None:
        return
    found = listing(find_store(store))
    width = max((len(listed.id) for listed in found), default=0)
    for listed in found:
        if as_json:
            click.echo(
                json.dumps({"state": listed.state, "done": listed.done, "trouble": listed.trouble or None, **asdict(listed.summary)})
            )
        else:
            click.echo(_line(listed, width))
    if any(listed.trouble for listed in found):
        where = find_store(store).uri
        click.echo(f"`edm2 verify {where} --drop` mends a damaged summary. A damaged plan: {MEND_PLAN[0].lower()}{MEND_PLAN[1:]}", err=True)


@command.command(short_help="Forget a run.")
@click.argument("run")
@store_option
def rm(run: str, store: str) -> None:
    """Forget RUN: its record goes now, what only it needed at the next `edm2 gc`. RUN is a run's id in --store, or STORE/runs/ID."""
    record = find_run(run, store)
    for entry in list(record.store.list(f"{record.folder}/")):
        record.store.delete(entry.path)
    click.echo(f"{record.id} is forgotten; `edm2 gc` removes what only it needed.")


def _line(listed: Listed, width: int) -> str:
    summary = listed.summary
    seeds = f"{len(summary.seeds)} seeds" if len(summary.seeds) > 1 else ""
    of = (", ".join(summary.recipes), seeds, epochs_in_words(summary.epochs))
    what = listed.trouble or " · ".join(part for part in of if part)
    asked = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.asked)) if summary.asked else " " * 16
    done = f"{listed.done if listed.done is not None else '?'}/{summary.tasks}"
    return f"{listed.id:{width}}  {asked}  {listed.state:10} {done:>9}  {what}".rstrip()
