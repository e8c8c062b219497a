"""edm2 gc"""

import click

from edm2core.store import find_store
from edm2core.store.damage import of_leases, of_run
from edm2core.store.gc import apply, plan_gc
from edm2core.store.leases import SILENT_S
from edm2core.store.runs import list_runs
from edm2core.words import size
from pipelines.cli.options import store_option


@click.command()
@store_option
@click.option("--days", default=7, show_default=True, type=click.IntRange(0), help="Keep everything that is younger.")
@click.option("--apply", "remove", is_flag=True, help="Remove it. Without this nothing is removed.")
def command(store: str, days: int, remove: bool) -> None:
    """List everything in the store that no run needs, and with --apply remove it. `edm2 runs` lists the runs, `edm2 runs rm` forgets one.

    Nothing is removed that a worker may still commit, whatever --days says. A run that starts meanwhile waits until all is removed. If a
    run's plan is damaged, its needs are unknown, and nothing is removed. Damaged summaries, events and leases are named and do no harm:
    `edm2 verify STORE --drop` mends them.
    """
    where = find_store(store)
    removals, freed = apply(where, days) if remove else (plan_gc(where, days), 0)
    damaged = [*of_leases(where, SILENT_S), *(damage for run in list_runs(where) for damage in of_run(where, run))]
    leases = [removal for removal in removals if removal.path.startswith("leases/")]  # tiny, and as many as there are tasks
    for removal in removals:
        if not removal.path.startswith("leases/"):
            click.echo(f"{size(removal.size):>12}  {removal.path}  {removal.why}")
    if leases:
        click.echo(f"{size(sum(lease.size for lease in leases)):>12}  {len(leases)} of leases/  {leases[0].why}")
    for damage in damaged:
        click.echo(f"✗ {damage.path}: {damage.what}")
    if damaged:
        click.echo(f"Nothing that these may name is removed; `edm2 verify {where.uri} --drop` mends them.")
    if remove:
        click.echo(f"{size(freed)} removed from {where.uri}.")
    elif removals:
        click.echo(f"{size(sum(removal.size for removal in removals))} could go; `edm2 gc --apply` removes it.")
    else:
        click.echo(f"Nothing in {where.uri} is older than {days} days and needed by no run.")
