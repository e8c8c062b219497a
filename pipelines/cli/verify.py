"""edm2 verify"""

from __future__ import annotations

import click

from edm2core.errors import EdmError
from edm2core.plan import trajectory_ref
from edm2core.store import open_store
from edm2core.store.averages import stored_averages
from edm2core.store.results import discard, load, verify
from edm2core.store.runs import list_runs, load_plan


@click.command(short_help="Check the digests of everything that runs stand on.")
@click.argument("store")
@click.option("--run", "only", help="Only what this run stands on.")
@click.option("--drop", is_flag=True, help="Remove damaged results, so that the next run makes them anew.")
def command(store: str, only: str | None, drop: bool) -> None:
    """Read every result that the runs in STORE stand on and compare it with its recorded digest."""
    where = open_store(store)
    tasks = [task for run in ([only] if only else list_runs(where)) for task in load_plan(where, run)[1]]
    trajectories = {trajectory_ref(task): task.settings["training"]["epochs"] for task in tasks if task.stage == "snapshot"}
    averages = [manifest.ref for ref, epochs in trajectories.items() for manifest in stored_averages(where, ref, epochs).values()]
    checked, damaged = 0, 0
    for ref in dict.fromkeys([*(task.ref for task in tasks), *averages]):
        manifest = load(where, ref)
        if manifest is None:
            continue
        checked += 1
        problems = verify(where, manifest)
        if problems:
            damaged += 1
            click.echo(f"✗ {manifest.title} ({ref}): {' '.join(problems)}{' Removed.' if drop else ''}")
            if drop:
                discard(where, f"{ref.folder}/")
    if damaged and not drop:
        raise EdmError(
            f"{damaged} of {checked} results are damaged.",
            where=where.uri,
            do_next="`--drop` removes them, so that the next run makes them anew.",
        )
    click.echo(f"{checked - damaged} of {checked} results are as recorded.")
