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


def beginning(names: Iterable[str], incomplete: str, beside: str = "") -> list[CompletionItem]:
    """The names that begin so, and what the shell itself completes `beside` them: file or dir."""
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [*found, CompletionItem(incomplete, type=beside)] if beside else found


def _completer(names: Callable[[click.Context], Iterable[str]], beside: str = "") -> Completer:
    return lambda context, parameter, incomplete: beginning(names(context), incomplete, beside)


def _runs(context: click.Context, with_recipes: bool = False) -> list[str]:
    """The runs of the store that the line names, else of the default one, or each with its recipes; none where it cannot be read."""
    values: dict[str, Any] = context.params
    address = default_store(values.get("store"))
    if "://" not in address and not Path(address).expanduser().is_dir():
        return []  # a shell that completes makes no folder
    with suppress(EdmError, OSError):
        listed = listing(find_store(address))
        return [f"{run.id}:{recipe}" for run in listed for recipe in run.summary.recipes] if with_recipes else [run.id for run in listed]
    return []


recipes = _completer(lambda context: recipe_names(), "file")
runs = _completer(_runs)
snapshots = _completer(lambda context: _runs(context, with_recipes=True), "dir")  # RUN:RECIPE
