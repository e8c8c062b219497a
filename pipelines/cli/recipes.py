"""edm2 recipes"""

from __future__ import annotations

from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from edm2core.config import load_recipe, recipe_names


@click.group(invoke_without_command=True, short_help="List the recipes, show one in full, or compare two.")
@click.pass_context
def command(context: click.Context) -> None:
    """List the published recipes."""
    if context.invoked_subcommand is None:
        table = Table("recipe", "resolution", "epochs", "batch", "weights", "norm", "magnitude-preserving", box=None, pad_edge=False)
        for name in recipe_names():
            recipe = load_recipe(name)
            network, training = recipe.network, recipe.training
            preserving = "yes" if network.magnitude_preserving else "no"
            table.add_row(
                name, str(network.resolution), str(training.epochs), str(training.batch), network.weights, network.norm, preserving
            )
        Console(highlight=False).print(table)


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the recipe NAME (or a path to one) in full, defaults included."""
    click.echo(
        yaml.safe_dump(load_recipe(name).model_dump(mode="json"), sort_keys=False, default_flow_style=None, allow_unicode=True).rstrip()
    )


@command.command()
@click.argument("one")
@click.argument("other")
def diff(one: str, other: str) -> None:
    """Print the settings in which recipe ONE differs from OTHER."""
    a, b = (_flat(load_recipe(name).model_dump(mode="json")) for name in (one, other))
    table = Table("setting", one, other, box=None, pad_edge=False)
    for setting in sorted({*a, *b} - {"name"}):
        if a.get(setting) != b.get(setting):
            table.add_row(setting, str(a.get(setting)), str(b.get(setting)))
    Console(highlight=False).print(table)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat
