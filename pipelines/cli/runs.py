"""edm2 runs"""

import json
import time

import click

from edm2core.store import find_store
from edm2core.store.plans import MEND_PLAN
from edm2core.store.runs import find_run
from edm2core.store.summary import Listed, epochs_in_words, listing
from pipelines.cli import completion
from pipelines.cli.options import store_option


@click.group(invoke_without_command=True)
@store_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line instead of a table.")
@click.pass_context
def command(context: click.Context, store: str, as_json: bool) -> None:
    """List the runs in a store, the last started first, with state, tasks done, recipes, seeds and epochs."""
    if context.invoked_subcommand is not None:
        return
    where = find_store(store)
    runs = listing(where)
    width = max((len(listed.id) for listed in runs), default=0)
    for listed in runs:
        click.echo(json.dumps(listed.to_json()) if as_json else _line(listed, width))
    if any(listed.trouble for listed in runs):
        mend_plan = f"A damaged plan: {MEND_PLAN[0].lower()}{MEND_PLAN[1:]}"
        click.echo(f"`edm2 verify {where.uri} --drop` mends a damaged summary. {mend_plan}", err=True)


@command.command(short_help="Forget a run.")
@click.argument("run", shell_complete=completion.runs)
@store_option
def rm(run: str, store: str) -> None:
    """Forget RUN: remove its record. `edm2 gc` later removes what only it needed. RUN is a run's id in --store, or STORE/runs/ID."""
    record = find_run(run, store)
    for entry in list(record.store.list(f"{record.folder}/")):
        record.store.delete(entry.path)
    click.echo(f"{record.id} is forgotten; `edm2 gc` removes what only it needed.")


def _line(listed: Listed, width: int) -> str:
    summary = listed.summary
    seeds = f"{len(summary.seeds)} seeds" if len(summary.seeds) > 1 else ""
    about = (", ".join(summary.recipes), seeds, epochs_in_words(summary.epochs))
    words = listed.trouble or " · ".join(filter(None, about))
    asked = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.asked)) if summary.asked else " " * 16
    done = f"{listed.done if listed.done is not None else '?'}/{summary.tasks}"
    return f"{listed.id:{width}}  {asked}  {listed.state:10} {done:>9}  {words}".rstrip()
