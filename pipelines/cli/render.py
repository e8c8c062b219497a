"""edm2 render"""

from pathlib import Path

import click

from components.launcher.profile import load_profile
from pipelines.cli import completion, options
from pipelines.render import FOLDER, kept_recipes, render, usual_profile


@click.command()
@click.argument("recipes", nargs=-1, shell_complete=completion.recipes)
@click.option("--cluster", metavar="PROFILE", help="Cluster profile (default: gpu, and lab for digits).")
@click.option("--out", type=options.FOLDER, default=FOLDER, show_default=True, help="Folder to write to.")
def command(recipes: tuple[str, ...], cluster: str | None, out: Path) -> None:
    """Write training jobs for each of RECIPES, ready for `kubectl apply -f`. Default: C, E and G of each data set.

    A job prepares its data if the store does not have them, and trains. Images are named by digest once `make images` has recorded it.
    """
    names = recipes or kept_recipes()
    for file in render(names, {name: load_profile(cluster or usual_profile(name)) for name in names}, out):
        click.echo(file)
