"""edm2 doctor"""

from collections.abc import Iterator
from pathlib import Path

import click

from components.launcher.cluster import ApiServer, Cluster
from components.launcher.job_kinds import kind_of
from components.launcher.profile import load_profile
from edm2core.plan.experiment import load_experiment
from edm2core.store import STORE_VARIABLE
from pipelines.cli.options import ExperimentPath, cluster_option
from pipelines.doctor.cluster import check_api, check_cluster
from pipelines.doctor.machine import Check, check_here, check_own_code, check_store
from pipelines.doctor.pod import check_from_pod


@click.command()
@click.option("--context", help="A context of the kubeconfig (default: the profile's).")
@cluster_option
@click.option(
    "--store",
    metavar="STORE",
    envvar=STORE_VARIABLE,
    show_envvar=True,
    help="A store to look at from here: a folder, minio://bucket/prefix or s3://bucket/prefix.",
)
@click.option("--experiment", type=ExperimentPath(path_type=Path), help="An experiment whose own code is looked at: what it imports.")
@click.option("--patience", default=600.0, show_default=True, help="Seconds to wait for the probe pod, which may have to pull images.")
def command(context: str | None, cluster: str | None, store: str | None, experiment: Path | None, patience: float) -> int:
    """Check whether this machine is ready for work; with --store also a store, with --context or --cluster also a cluster.

    With a profile, a small pod runs in its namespace for some seconds. The exit code is 1 if there is a problem.
    """
    problems = 0
    for check in _checks(context, cluster, store, experiment, patience):
        problems += check.state == "problem"
        click.echo(f"{check.state:<8} {check.what}" + (f" → {check.do_next}" if check.do_next else ""))
    return int(problems > 0)


def _checks(context: str | None, cluster: str | None, store: str | None, experiment: Path | None, patience: float) -> Iterator[Check]:
    yield from check_here()
    if store:
        yield from check_store(store)
    if experiment:
        yield from check_own_code(load_experiment(experiment))
    profile = load_profile(cluster) if cluster else None
    if profile is None and context is None:
        return
    api = ApiServer.connect(context or (profile.context if profile else None))
    answer = check_api(api)
    yield answer
    if answer.state == "ok":
        yield from check_cluster(api, profile)
        if profile is not None:
            yield from check_from_pod(Cluster(api, profile.namespace, kind_of(profile)), profile, patience)
