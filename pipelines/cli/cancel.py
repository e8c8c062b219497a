"""edm2 cancel"""

from __future__ import annotations

import click

from components.launcher.cluster import Cluster
from components.launcher.profile import load_profile
from edm2core.errors import EdmError
from edm2core.store import open_store
from edm2core.words import duration
from pipelines.cli.options import needed_cluster_option
from pipelines.kubeflow.cancel import saved_states, stop_jobs, take_back
from pipelines.kubeflow.submit import Kubeflow


@click.command(short_help="Stop a run in a cluster; what it has is kept.")
@click.argument("run")
@needed_cluster_option
def command(run: str, cluster: str) -> None:
    """Terminate RUN on Kubeflow Pipelines, stop its jobs, and say what state was saved.

    A run that `edm2 run --cluster` drives is stopped there, by Ctrl-C: as long as it is driven, its jobs are started again.
    """
    profile = load_profile(cluster)
    try:
        kubeflow = Kubeflow(profile)
        found = kubeflow.runs(run)
        for one in found:
            if not one.over:
                kubeflow.terminate(one.id)
                click.echo(f"Kubeflow Pipelines: {one.name} terminated")
        if all(one.over for one in found):
            click.echo(f"Kubeflow Pipelines: {found[0].state.lower() if found else 'no such run'}")
    except EdmError as error:  # a cluster with only the training operator has none, and jobs are to be stopped in any case
        click.echo(f"{error}")
    stopped = stop_jobs(Cluster.connect(profile), profile, run, click.echo)
    click.echo(f"{len(stopped)} jobs stopped.")
    store = open_store(profile.store.uri)
    take_back(store, run)
    for name, age in saved_states(store, stopped).items():
        click.echo(f"{name}: {f'its state was saved {duration(age)} ago' if age is not None else 'no state was saved yet'}")
