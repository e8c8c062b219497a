"""What a shell completes beside files: recipes, bundled experiments, runs of the store, their recipes."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from edm2core.config.recipes import recipe_names
from edm2core.errors import EdmError
from edm2core.store import default_store, find_store
from edm2core.store.summary import listing

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The published recipes, and files."""
    return [*_beginning(recipe_names(), incomplete), CompletionItem(incomplete, type="file")]


def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The runs of the store that the line names, else of the default one."""
    return _beginning(_runs(context), incomplete)


def snapshots(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """RUN:RECIPE of every run of the store, and folders."""
    return [*_beginning(_runs(context, with_recipes=True), incomplete), CompletionItem(incomplete, type="dir")]


def bundled(folder: Path, incomplete: str) -> list[CompletionItem]:
    """The bundled experiments, and files."""
    return [*_beginning(sorted(file.stem for file in folder.glob("*.yaml")), incomplete), CompletionItem(incomplete, type="file")]


def _runs(context: click.Context, with_recipes: bool = False) -> list[str]:
    """The runs of a store, or each with its recipes; none where the store cannot be read."""
    values: dict[str, Any] = context.params
    address = default_store(values.get("store"))
    if "://" not in address and not Path(address).expanduser().is_dir():
        return []  # a shell that completes makes no folder
    with suppress(EdmError, OSError):
        listed = listing(find_store(address))
        return [f"{run.id}:{recipe}" for run in listed for recipe in run.summary.recipes] if with_recipes else [run.id for run in listed]
    return []


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
