"""edm2 new"""

from pathlib import Path

import click

from pipelines.cli.options import FOLDER, PATH
from pipelines.inputs.new_experiment import new_experiment


@click.command()
@click.argument("name", type=FOLDER)
@click.option("--data", type=PATH, required=True, help="A folder or zip of images, with a sub-folder for each class.")
def command(name: Path, data: Path) -> None:
    """Write an experiment for your own images into the new folder NAME.

    It looks at the images (how many, how large, grey or in colour, which classes) and chooses two recipes and settings for a first look on
    this machine. Each setting has a comment. Nothing is overwritten, and nothing is run.
    """
    experiment = new_experiment(name, data)
    click.echo(f"{experiment}: two recipes beside it, E.yaml and G.yaml")
    click.echo(f"next: edm2 plan {experiment} --summary")
    click.echo(f"then: edm2 run {experiment}")
