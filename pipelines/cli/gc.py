"""edm2 gc"""

from __future__ import annotations

import click

from edm2core.events import size
from edm2core.store import find_store
from edm2core.store.gc import apply, plan_gc
from pipelines.cli.options import store_option


@click.command(short_help="List what no run needs, and remove it.")
@store_option
@click.option("--days", default=7, show_default=True, type=click.IntRange(0), help="Leave alone what is younger.")
@click.option("--apply", "remove", is_flag=True, help="Remove it. Without this nothing is removed.")
def command(store: str, days: int, remove: bool) -> None:
    """List everything in the store that no run needs (`edm2 runs` lists them, `edm2 runs rm` forgets one), and with --apply remove it.

    Whatever --days says, nothing goes that somebody at work may still commit; a run that begins meanwhile waits until all is removed. If
    one run's plan is damaged, what it needs is unknown, and nothing goes.
    """
    where = find_store(store)
    removals, freed = apply(where, days) if remove else (plan_gc(where, days), 0)
    leases = [removal for removal in removals if removal.path.startswith("leases/")]  # tiny, and as many as tasks
    for removal in removals:
        if not removal.path.startswith("leases/"):
            click.echo(f"{size(removal.size):>12}  {removal.path}  {removal.why}")
    if leases:
        click.echo(f"{size(sum(lease.size for lease in leases)):>12}  {len(leases)} of leases/  {leases[0].why}")
    total = sum(removal.size for removal in removals)
    if remove:
        click.echo(f"{size(freed)} removed from {where.uri}.")
    elif removals:
        click.echo(f"{size(total)} could go; `edm2 gc --apply` removes it.")
    else:
        click.echo(f"Nothing in {where.uri} is older than {days} days and needed by no run.")
