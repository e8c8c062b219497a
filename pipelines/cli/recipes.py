"""edm2 recipes"""

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel

from edm2core.config import recipe_names
from edm2core.config.describe import differences
from edm2core.config.fields import OWN
from edm2core.own_code.settings import as_written, load_recipe_with_code
from pipelines.cli import completion
from pipelines.cli.options import FOLDER

code_option = click.option("--code", type=FOLDER, help="The folder that its own code lies in (default: that of the recipe's file).")


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the published recipes."""
    if context.invoked_subcommand is None:
        rows: list[tuple[str, ...]] = [("recipe", "side", "epochs", "batch", "weights", "norm", "magnitude-preserving")]
        for recipe in map(load_recipe_with_code, recipe_names()):
            network, training = recipe.unet, recipe.training
            numbers = map(str, (network.resolution, training.epochs, training.batch))
            rows.append((recipe.name, *numbers, network.weights, network.norm, "yes" if network.magnitude_preserving else "no"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


@command.command(short_help="Print a recipe in full.")
@click.argument("name", shell_complete=completion.recipes)
@code_option
def show(name: str, code: Path | None) -> None:
    """Print the recipe NAME (or a path to one) in full, defaults included, with a word on each setting."""
    recipe = load_recipe_with_code(name, code)
    for line in _lines(recipe, as_written(recipe)):
        click.echo(line)


def _lines(section: BaseModel, values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A section as YAML, a setting a line; what each means stands behind it as a comment. `values` are its own as `as_written` has them."""
    own = dict(getattr(section, OWN, ()))
    for name, value in values.items():
        inner = None if name in own else getattr(section, name)
        text = f"{name}:" if isinstance(inner, BaseModel) else _in_yaml({name: value})
        word = "A setting of own code." if name in own else type(section).model_fields[name].description
        yield f"{indent}{text}  # {word}" if word else f"{indent}{text}"
        if isinstance(inner, BaseModel):
            yield from _lines(inner, value, f"{indent}  ")


def _in_yaml(setting: dict[str, Any]) -> str:
    """One setting on one line."""
    flow = yaml.safe_dump(setting, default_flow_style=True, allow_unicode=True, width=math.inf)
    return str(flow).strip()[1:-1]  # without the braces around it


@command.command(short_help="Say in words how two recipes differ.")
@click.argument("one", shell_complete=completion.recipes)
@click.argument("other", shell_complete=completion.recipes)
@code_option
def diff(one: str, other: str, code: Path | None) -> None:
    """Say in words how recipe OTHER differs from ONE."""
    differing = differences(load_recipe_with_code(one, code), load_recipe_with_code(other, code))
    count = f"{len(differing)} settings differ" if len(differing) > 1 else "1 setting differs"
    click.echo(f"{one} → {other}: {count}" if differing else f"{one} and {other} have the same settings")
    for section, settings in groupby(differing, key=lambda setting: setting.name.partition(".")[0]):
        click.echo(f"\n{section}")
        for setting in settings:
            click.echo(f"  {setting.description}: {setting.one} → {setting.other}  ({setting.name})")
