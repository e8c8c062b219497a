"""edm2 render"""

from __future__ import annotations

from pathlib import Path

import click

from components.launcher.profile import load_profile
from edm2core.config import recipe_names
from pipelines.cli import options
from pipelines.render import FOLDER, render, usual_profile


@click.command(short_help="Write ready training jobs for kubectl.")
@click.argument("recipes", nargs=-1)
@click.option("--cluster", metavar="PROFILE", help="Cluster profile (default: gpu, and lab for digits).")
@click.option("--out", type=options.FOLDER, default=FOLDER, show_default=True, help="Folder to write to.")
def command(recipes: tuple[str, ...], cluster: str | None, out: Path) -> None:
    """Write a PyTorchJob for each of RECIPES (default: every published one), ready for `kubectl apply -f`.

    A job prepares its data where they are not in the store, and trains. Images are named by digest, once building has recorded them.
    """
    profiles = {name: load_profile(cluster or usual_profile(name)) for name in recipes or recipe_names()}
    for file in render(recipes, profiles, out):
        click.echo(file)
