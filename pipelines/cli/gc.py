"""edm2 gc"""

from __future__ import annotations

import click

from edm2core.store import find_store
from edm2core.store.damage import of_leases, of_run
from edm2core.store.gc import apply, plan_gc
from edm2core.store.leases import SILENT_S
from edm2core.store.runs import list_runs
from edm2core.words import size
from pipelines.cli.options import store_option


@click.command(short_help="List what no run needs, and remove it.")
@store_option
@click.option("--days", default=7, show_default=True, type=click.IntRange(0), help="Leave alone what is younger.")
@click.option("--apply", "remove", is_flag=True, help="Remove it. Without this nothing is removed.")
def command(store: str, days: int, remove: bool) -> None:
    """List everything in the store that no run needs (`edm2 runs` lists them, `edm2 runs rm` forgets one), and with --apply remove it.

    Whatever --days says, nothing goes that somebody at work may still commit; a run that begins meanwhile waits until all is removed. If
    one run's plan is damaged, what it needs is unknown, and nothing goes. Damaged summaries, events and leases are named, and cost nothing:
    `edm2 verify STORE --drop` mends them.
    """
    where = find_store(store)
    removals, freed = apply(where, days) if remove else (plan_gc(where, days), 0)
    damaged = [*of_leases(where, SILENT_S), *(damage for run in list_runs(where) for damage in of_run(where, run))]
    leases = [removal for removal in removals if removal.path.startswith("leases/")]  # tiny, and as many as tasks
    for removal in removals:
        if not removal.path.startswith("leases/"):
            click.echo(f"{size(removal.size):>12}  {removal.path}  {removal.why}")
    if leases:
        click.echo(f"{size(sum(lease.size for lease in leases)):>12}  {len(leases)} of leases/  {leases[0].why}")
    for damage in damaged:
        click.echo(f"✗ {damage.path}: {damage.what}")
    if damaged:
        click.echo(f"What is damaged keeps what it may name; `edm2 verify {where.uri} --drop` mends it.")
    total = sum(removal.size for removal in removals)
    if remove:
        click.echo(f"{size(freed)} removed from {where.uri}.")
    elif removals:
        click.echo(f"{size(total)} could go; `edm2 gc --apply` removes it.")
    else:
        click.echo(f"Nothing in {where.uri} is older than {days} days and needed by no run.")
