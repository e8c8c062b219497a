"""edm2 submit"""

import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from components.launcher.profile import load_profile
from edm2core.errors import EdmError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.tasks import Task
from edm2core.provenance.made_by import made_by
from edm2core.store import open_store
from edm2core.store.results import manifests
from edm2core.store.runs import open_run, run_id
from pipelines.cli.options import accept_code_option, experiment_argument, needed_cluster_option
from pipelines.inputs.user_files import absent, brought, planned, put_code, upload
from pipelines.kubeflow.compiler import compile
from pipelines.kubeflow.submit import Kubeflow

LOOK_S = 10.0  # the most time to try to read the store, which this machine may be unable to reach


@click.command()
@experiment_argument
@needed_cluster_option
@click.option("--wait", is_flag=True, help="Wait until the run is over; exit code 1 if it failed.")
@accept_code_option
def command(experiment: Path, cluster: str, wait: bool, accept_code: bool) -> None:
    """Compile EXPERIMENT and start it on the cluster's Kubeflow Pipelines.

    EXPERIMENT is a file, or the name of a bundled one, such as demo.
    Results that are in the store are not computed again, so submitting again continues a run that failed or was cancelled. An experiment
    that is too large for one run of Kubeflow becomes several, split by training, which share the store and the report.
    """
    profile = load_profile(cluster)
    read = load_experiment(experiment)
    tasks = planned(read, accept_code)
    run = run_id(read, tasks)
    _say_who_made(tasks, profile.store.uri)
    kubeflow = Kubeflow(profile)
    if brought(tasks) or read.code:
        store = open_store(profile.store.uri)
        open_run(store, read, tasks, absent(read), click.echo)  # first, so that gc keeps what is uploaded
        upload(tasks, store, click.echo)
        put_code(read, tasks, store)
    packages = compile(tasks, read, run, profile, profile.store.uri)
    submitted = []
    with tempfile.TemporaryDirectory() as folder:
        for package in packages:
            file = Path(folder) / "package.yaml"
            package.write(file)
            submitted.append(kubeflow.submit(file, read.name, run, package.part))
            part = f", part {package.part}" if package.part else ""
            click.echo(f"run {run}{part} ({len(package.tasks)} tasks) is Kubeflow's {submitted[-1].id}: {kubeflow.link(submitted[-1].id)}")
    click.echo(f"`edm2 status {run} --cluster {cluster}` says how far it is.")
    if wait:
        ended = [kubeflow.wait(part.id, lambda now: click.echo(f"{now.state.lower()} {now.reason}".rstrip())) for part in submitted]
        if failed := next((part for part in ended if part.state != "SUCCEEDED"), None):
            raise EdmError(
                f"Run {run} has ended as {failed.state.lower()}{f': {failed.reason}' if failed.reason else ''}.",
                where=f"{profile.store.uri}/runs/{run}/report.html",
                do_next=f"The report says which task failed; `edm2 logs {run} --store {profile.store.uri}` prints what it said. "
                "Submitting again goes on from there.",
            )


def _say_who_made(tasks: Sequence[Task], store: str) -> None:
    """Print how many results were made by code that differs from this machine's. Pods run this code if their image was made from it."""
    said = ["The store cannot be read from here: the report says which results other science has made."]

    def look() -> None:
        with suppress(EdmError):
            said[:] = made_by(manifests(open_store(store), tasks).values()).lines

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(LOOK_S)
    for line in list(said):
        click.echo(line)
