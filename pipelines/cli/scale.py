"""edm2 scale"""

import click

from components.launcher.cluster import Cluster
from components.launcher.followers import signs_of_life
from components.launcher.gathering import WHOLE
from components.launcher.job import run_label
from components.launcher.profile import load_profile
from components.launcher.resizing import SIZE
from edm2core.errors import InputError
from pipelines.cli import completion
from pipelines.cli.options import needed_cluster_option


@click.command()
@click.argument("run", shell_complete=completion.runs)
@click.option("--nodes", type=click.IntRange(1), required=True, metavar="N", help="Pods that each training is to have.")
@needed_cluster_option
def command(run: str, nodes: int, cluster: str) -> None:
    """Give the trainings of RUN another number of pods.

    Each saves its state, and goes on from there with N pods. The profile's resources.snapshot.nodes says how many there may be.
    """
    profile = load_profile(cluster)
    resources = profile.resources_of("snapshot")
    if not resources.nodes.min <= nodes <= resources.nodes.max:
        raise InputError(
            f"A training has {resources.nodes.min} to {resources.nodes.max} pods on this cluster, not {nodes}.",
            where=f"resources.snapshot.nodes of the profile {profile.name}",
            do_next="Name a number between, or change the profile: `nodes: {min: 1, max: 4}`.",
        )
    api = Cluster.connect(profile)
    jobs = [job for job in api.jobs({run_label(run): "yes", "edm2/stage": "training"}) if api.kind.ending(job) is None]
    if not jobs:
        raise InputError(f"No training of the run {run} has a job.", where=profile.namespace, do_next="`edm2 runs` lists the runs.")
    for job in jobs:
        name, before = job["metadata"]["name"], api.kind.pods_wanted(job)
        api.patch_job(name, {"metadata": {"annotations": {SIZE: str(nodes), WHOLE: None}}})
        alone = "" if signs_of_life(job) else "; nobody follows it, so that happens once somebody runs it again"
        click.echo(f"{name}: {before} pods → {nodes}{alone}")
