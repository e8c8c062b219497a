"""edm2 import"""

from pathlib import Path

import click

from edm2core.config import load_recipe
from edm2core.config.settings import StartSettings
from edm2core.data.headers import check_torch
from edm2core.data.source import digest_of
from edm2core.errors import InputError
from edm2core.plan.tasks import start_task
from edm2core.store import open_store
from pipelines.cli import completion
from pipelines.cli.options import PATH, store_option
from pipelines.run.run_tasks import do_task
from pipelines.run.terminal import open_console


@click.group()
def command() -> None:
    """Bring another implementation's checkpoint into a store. Nothing in such a file is ever executed."""


@command.command(short_help="Of FutureXiang/edm2.")
@click.argument("checkpoint", type=PATH)
@click.option(
    "--recipe",
    required=True,
    shell_complete=completion.recipes,
    help="The recipe that it was trained with: a name that `edm2 recipes` lists, or a path.",
)
@click.option("--epoch", type=click.IntRange(1), help="Its completed epochs (default: e + 1 of model_<e>.pth).")
@store_option
def fx(checkpoint: Path, recipe: str, epoch: int | None, store: str) -> None:
    """Make a snapshot and a state of CHECKPOINT, a model_<e>.pth of FutureXiang/edm2.

    A recipe goes on from it if its `start` names the file. So does an experiment with `overrides: {start.checkpoint: FILE}`.
    """
    try:
        check_torch(checkpoint)
    except InputError as error:
        raise InputError(error.what, where=error.where, do_next=f"{error.do_next} CHECKPOINT is a model_<e>.pth.") from error
    start = StartSettings(checkpoint=str(checkpoint.resolve()), epoch=epoch)
    chosen = {"start.checkpoint": start.checkpoint} | ({"start.epoch": start.completed} if start.completed else {})
    read = load_recipe(recipe, chosen)
    console = open_console()
    made = do_task(start_task(read, start, digest_of(checkpoint)), open_store(store), f"import-{checkpoint.stem}", console)
    epochs = "at an epoch that is not known" if start.completed is None else f"after {start.completed} epochs"
    steps = "" if made.metadata["updates"] is None else f", {made.metadata['updates']} steps"
    results = "snapshot and state" if "state.safetensors" in made.files else "snapshot, without an optimiser's state to train on from"
    console.print(f"{results} {epochs}{steps}: {store.rstrip('/')}/{made.ref.folder}")
