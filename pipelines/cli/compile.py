"""edm2 compile"""

from pathlib import Path

import click

from components.launcher.profile import load_profile
from edm2core.plan.experiment import load_experiment
from edm2core.store import check_address, open_store
from edm2core.store.runs import run_id
from pipelines.cli.options import PATH, accept_code_option, cluster_option, experiment_argument, store_option
from pipelines.inputs.user_files import brought, planned, put_code
from pipelines.kubeflow.compiler import compile
from pipelines.kubeflow.workflow_size import MOST


@click.command()
@experiment_argument
@cluster_option
@store_option
@click.option("--out", type=PATH, help="The package's file (default: RUN.yaml).")
@accept_code_option
def command(experiment: Path, cluster: str | None, store: str, out: Path | None, accept_code: bool) -> None:
    """Write EXPERIMENT as a package that Kubeflow Pipelines runs.

    EXPERIMENT is a file, or the name of a bundled one, such as demo.
    With --cluster, the profile gives the store, images and resources, and heavy tasks become jobs of their own. Without it, every task runs
    in its own pod, with the store that --store gives. A plan that is too large for one run of Kubeflow becomes several packages, split by
    training. Code of your own that the experiment names is put into that store, since the package's tasks take it from there.
    """
    profile = load_profile(cluster) if cluster else None
    check_address(store)
    read = load_experiment(experiment)
    tasks = planned(read, accept_code)
    run = run_id(read, tasks)
    out = out or Path(f"{run}.yaml")
    packages = compile(tasks, read, run, profile, profile.store.uri if profile else store)
    for number, package in enumerate(packages, 1):
        file = out if len(packages) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        package.write(file)
        part, kib = f", part {package.part}" if package.part else "", package.size.total >> 10
        click.echo(f"{file}: run {run}{part}, {len(package.tasks)} tasks, about {kib} KiB of {MOST >> 10} in Kubeflow.")
    if used := sorted({package for task in tasks for package in task.code}):
        where = open_store(profile.store.uri if profile else store)
        put_code(read, tasks, where)
        click.echo(f"Own code, {', '.join(used)}, is in {where.uri}, where the package's tasks take it from.")
    if profile and (reading := brought(tasks)):
        sources = ", ".join(str(task.settings["digest"]) for task in reading)
        pods = "Pods may download URLs; they cannot read local paths."
        click.echo(f"These sources are not uploaded, which `edm2 submit` does: {sources}. {pods}")
