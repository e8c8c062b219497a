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


@click.command()
@click.argument("run")
@needed_cluster_option
def command(run: str, cluster: str) -> None:
    """Terminate RUN on Kubeflow Pipelines, stop its jobs, and say which states were saved.

    If `edm2 run --cluster` drives the run, stop that command with Ctrl-C: as long as it runs, it starts the jobs again.
    """
    profile = load_profile(cluster)
    try:
        kubeflow = Kubeflow(profile)
        parts = kubeflow.runs(run)
        for part in parts:
            if not part.over:
                kubeflow.terminate(part.id)
                click.echo(f"Kubeflow Pipelines: {part.name} terminated")
        if all(part.over for part in parts):
            click.echo(f"Kubeflow Pipelines: {parts[0].state.lower() if parts else 'no such run'}")
    except EdmError as error:  # the cluster may have no Kubeflow Pipelines, and jobs have to be stopped in any case
        click.echo(f"{error}")
    stopped = stop_jobs(Cluster.connect(profile), profile, run, click.echo)
    click.echo(f"{len(stopped)} jobs stopped.")
    store = open_store(profile.store.uri)
    take_back(store, run)
    for name, age in saved_states(store, stopped).items():
        click.echo(f"{name}: {f'its state was saved {duration(age)} ago' if age is not None else 'no state was saved yet'}")
