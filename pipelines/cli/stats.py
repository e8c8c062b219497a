"""edm2 stats"""

from pathlib import Path

import click
import yaml

from edm2core.config.recipes import lay, recipe_document
from edm2core.config.yaml_file import Origin
from edm2core.errors import InputError
from edm2core.paths import located
from edm2core.plan.experiment import complete
from edm2core.registry import WEIGHTS
from edm2core.store import open_store
from pipelines.cli import completion
from pipelines.cli.options import PATH, store_option
from pipelines.inputs.user_files import reference_tasks
from pipelines.run.run_tasks import do_task
from pipelines.run.terminal import open_console


@click.group()
def command() -> None:
    """Bring others' reference statistics into a store. An experiment that needs our own computes them from the prepared data."""


@command.command("import", short_help="Make a reference of an .npz.")
@click.argument("file", type=PATH)
@click.option(
    "--recipe",
    required=True,
    shell_complete=completion.recipes,
    help="A recipe of the data set that they describe: a name that `edm2 recipes` lists, or a path.",
)
@click.option("--origin", required=True, help="Where they come from, in words. Every table that uses them shows it.")
@click.option(
    "--extractor", type=click.Choice(list(WEIGHTS)), default="inception", show_default=True, help="The extractor of their features."
)
@click.option("--weights", required=True, help="Path or URL of the extractor's weights.")
@click.option("--count", required=True, type=click.IntRange(1), help="How many images they describe.")
@click.option("--resolution", required=True, type=click.IntRange(1), help="The side of these images, in pixels.")
@store_option
def import_(file: Path, recipe: str, origin: str, extractor: str, weights: str, count: int, resolution: int, store: str) -> None:
    """Check FILE, an .npz with mu and sigma as NVlabs and pytorch-fid write it, and make a reference of it.

    Statistics of another number or size of images than the recipe's are refused, and so are those of other features. If a recipe's
    `reference` names the file, its samples are compared with these statistics instead of our own, and every table says so.
    """
    chosen = {"source": str(file.resolve()), "extractor": extractor, "count": count, "resolution": resolution, "origin": origin}
    read = complete(lay(recipe_document(recipe), "reference", chosen, Origin("the command", 1)))
    if not file.is_file():
        raise InputError("There is no such file.", where=str(file), do_next="Give the path of an .npz.")
    tasks = reference_tasks(read, extractor, located(weights, Path(), "--weights", urls=True))
    console, where = open_console(), open_store(store)
    for task in tasks:
        made = do_task(task, where, f"stats-{file.stem}", console)
    console.print(f"{made.title}: {store.rstrip('/')}/{made.ref.folder}")
    console.print("To compare with it, in a recipe:")
    console.print(yaml.safe_dump({"reference": chosen}, sort_keys=False))
