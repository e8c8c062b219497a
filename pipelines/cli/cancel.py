"""edm2 cancel"""

import time
from collections.abc import Callable, Iterable, Sequence

import click

from components.launcher.cluster import Cluster
from components.launcher.followers import stop_job
from components.launcher.job import run_label
from components.launcher.profile import Profile, load_profile
from components.launcher.spec import job_name
from components.record.plan_parameter import wisher
from edm2core.errors import EdmError, InputError
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store import open_store
from edm2core.store.base import Store
from edm2core.store.runs import load_plan
from edm2core.store.scratch import STATE_SLOTS
from edm2core.store.wanted_epochs import unwant
from edm2core.words import duration
from pipelines.cli import completion
from pipelines.cli.options import needed_cluster_option
from pipelines.kubeflow.submit import Kubeflow

LOOK_S = 1.0  # the time between two looks whether pods are gone


@click.command()
@click.argument("run", shell_complete=completion.runs)
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
    for name, age in saved_states(store, take_back(store, run), stopped).items():
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


def take_back(store: Store, run: str) -> Sequence[Task]:
    """Record that the run wants no more snapshots; returns its plan. Its last task in Kubeflow does this too, but may not have run."""
    try:
        plan = load_plan(store, run)[1]
    except InputError:  # a run that has no plan yet wants none
        return ()
    unwant(store, plan, wisher(run))
    return plan


def saved_states(store: Store, plan: Iterable[Task], jobs: Iterable[str]) -> dict[str, float | None]:
    """The age in seconds of the latest saved state of each job that trains a trajectory of the plan; None if it has none."""
    trained = {job_name(task, store.uri): trajectory_ref(task).scratch for task in plan if task.stage == "snapshot"}
    ages: dict[str, float | None] = {}
    for name in jobs:
        if scratch := trained.get(name):
            ages[name] = min((entry.age_s for slot in STATE_SLOTS for entry in store.list(f"{scratch}/{slot}/")), default=None)
    return ages
