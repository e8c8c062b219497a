"""edm2 status"""

from __future__ import annotations

import click

from components.launcher.profile import load_profile
from components.launcher.spec import work_ref
from edm2core.errors import IntegrityError
from edm2core.manifest import Ref
from edm2core.store.damage import of_run
from edm2core.store.leases import holder
from edm2core.store.results import load
from edm2core.store.runs import find_run, load_plan
from pipelines.cli.options import cluster_option, store_option
from pipelines.submit import Kubeflow, must_find


@click.command(short_help="Say how far a run is.")
@click.argument("run")
@store_option
@cluster_option
def command(run: str, store: str, cluster: str | None) -> None:
    """Say how far RUN is: what is in the store, what is being worked on and by whom.

    RUN is a run's id in --store, or STORE/runs/ID. With --cluster, the store is the profile's, and Kubeflow Pipelines says how it sees
    the run.
    """
    if cluster:
        profile = load_profile(cluster)
        store = profile.store.uri
        found = must_find(Kubeflow(profile), run)
        click.echo(f"Kubeflow Pipelines: {found.state.lower()} {found.reason}".rstrip())
    record = find_run(run, store)
    where = record.store
    _, tasks = load_plan(where, record.id)
    damaged: list[str] = [f"{damage.path}: {damage.what}" for damage in of_run(where, record.id)]
    done: set[Ref] = set()
    for task in tasks:
        try:
            done |= {task.ref} if load(where, task.ref) else set()
        except IntegrityError as error:
            damaged.append(f"{task.title}: {error.what}")
    click.echo(f"{len(done)} of {len(tasks)} tasks are done.")
    for ref in dict.fromkeys(work_ref(task) for task in tasks if task.ref not in done):
        worker = holder(where, ref)
        if worker is not None and worker.alive:
            title = next(task.title for task in tasks if task.ref not in done and work_ref(task) == ref)
            click.echo(f"  {title}: {worker}")
    for words in damaged:
        click.echo(f"  damaged: {words}")
    if damaged:
        click.echo(f"  `edm2 verify {where.uri} --drop` mends what can be.")
