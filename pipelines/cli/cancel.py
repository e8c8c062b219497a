"""edm2 cancel"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import click

from components.launcher.cluster import Cluster
from components.launcher.followers import stop_job
from components.launcher.job import run_label
from components.launcher.profile import Profile, load_profile
from components.record.plan_parameter import wisher
from edm2core.errors import EdmError, InputError
from edm2core.plan.manifest import Ref
from edm2core.store import open_store
from edm2core.store.base import Store
from edm2core.store.runs import load_plan
from edm2core.store.wanted_epochs import unwant
from edm2core.words import duration
from pipelines.cli.options import needed_cluster_option
from pipelines.kubeflow.submit import Kubeflow

TRAINING = "edm2-trajectory-"  # how the names of jobs that train begin
LOOK_S = 1.0  # the time between two looks whether pods are gone


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


def stop_jobs(cluster: Cluster, profile: Profile, run: str, say: Callable[[str], None]) -> list[str]:
    """Suspend the run's jobs, which then save their states, and wait until their pods are gone. Returns the names of the stopped jobs.

    A job that another run wants too goes on. A job that Kubeflow's ending tasks have suspended already counts as stopped.
    """
    stopped = [job["metadata"]["name"] for job in cluster.jobs({run_label(run): "yes"}) if stop_job(cluster, profile, job, run, say)]
    end = time.monotonic() + profile.grace_s + LOOK_S
    while (left := [name for name in stopped if cluster.pods(name)]) and time.monotonic() < end:
        time.sleep(LOOK_S)
    for name in left:
        say(f"{name} still has pods after {profile.grace_s} s")
    return stopped


def take_back(store: Store, run: str) -> None:
    """Record that the run wants no more snapshots. Its last task in Kubeflow does this too, but may not have run."""
    with suppress(InputError):  # a run that has no plan yet wants none
        unwant(store, load_plan(store, run)[1], wisher(run))


def saved_states(store: Store, jobs: Iterable[str]) -> dict[str, float | None]:
    """The age in seconds of the latest saved state of each job that trains; None if it has none."""
    ages: dict[str, float | None] = {}
    for name in jobs:
        if name.startswith(TRAINING):
            key, _, _store = name.removeprefix(TRAINING).partition("-")
            scratch = Ref("trajectory", key).scratch
            states = [entry.age_s for slot in ("state-0", "state-1") for entry in store.list(f"{scratch}/{slot}/")]
            ages[name] = min(states, default=None)
    return ages
