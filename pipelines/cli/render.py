"""edm2 render"""

from pathlib import Path

import click

from components.launcher.job_kinds import KINDS
from components.launcher.profile import Profile, load_profile
from pipelines.cli import completion, options
from pipelines.render import kept_recipes, plain_profile, render, runtimes, usual_profile


@click.command()
@click.argument("recipes", nargs=-1, shell_complete=completion.recipes)
@click.option("--cluster", metavar="PROFILE", help="Cluster profile (default: gpu, and lab for digits).")
@click.option("--job", type=click.Choice([kind.word for kind in KINDS]), help="Kind of job (default: the profile's, else pytorchjob).")
@click.option("--out", type=options.FOLDER, help="Folder to write to (default: k8s/pytorchjobs or k8s/trainjobs, by the kind of job).")
@click.option(
    "--runtimes",
    "only_runtimes",
    is_flag=True,
    help="Print instead the TrainingRuntimes that the profile's TrainJobs need; without --cluster those of a profile's defaults.",
)
def command(recipes: tuple[str, ...], cluster: str | None, job: str | None, out: Path | None, only_runtimes: bool) -> None:
    """Write training jobs for each of RECIPES, ready for `kubectl apply -f`. Default: C, E and G of each data set.

    A job prepares its data if the store does not have them, and trains. Images are named by digest once `make images` has recorded it.
    """

    def profile(name: str) -> Profile:
        read = load_profile(name) if name else plain_profile()
        return read.model_copy(update={"job": job}) if job else read

    if only_runtimes:
        click.echo(runtimes(profile(cluster or "")), nl=False)
        return
    names = recipes or kept_recipes()
    for file in render(names, {name: profile(cluster or usual_profile(name)) for name in names}, out):
        click.echo(file)
