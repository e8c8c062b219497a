"""Writes a recorded experiment with all that it names: its recipe files, as its plan has them, and its own code, from the store."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edm2core.config.given import FILES, text_of, text_with
from edm2core.config.settings import Recipe
from edm2core.config.yaml_file import Document, parse
from edm2core.errors import InputError, MissingError
from edm2core.own_code.settings import as_written
from edm2core.own_code.source import content_digest
from edm2core.plan.plan import Plan
from edm2core.registry import WEIGHTS
from edm2core.store.base import Store
from edm2core.store.uploaded_sources import PACKED, stored_path, take

NOTE = "  # by edm2 reproduce"
ENDINGS = (".yaml", ".yml")


def recipe_files(experiment: Document) -> list[str]:
    """The recipe files that an experiment names, as it writes them."""
    return [each for each in experiment.values.get("recipes", []) if str(each).endswith(ENDINGS)]


def own_code(plan: Plan) -> dict[str, str]:
    """The own code that a plan's tasks run: package → its content, as keys hold it."""
    return {name: content for task in plan for name, content in task.code.items()}


def installed(content: str) -> str:
    """The distribution that own code came from, as name==version; empty if it lay beside its experiment."""
    return content.rpartition(" ")[0]


def code_address(store: Store, content: str) -> str:
    """Where a store has the files of own code."""
    return f"{store.uri}/{stored_path(content_digest(content))}{PACKED}"


def write_experiment(name: str, text: str, plan: Plan, store: Store, folder: Path) -> list[Path]:
    """Write a run's experiment into a new folder as NAME.yaml, with what it names beside it. Returns the files and packages.

    Recipe files are written in full, as the plan has them, so their paths are whole. Own code is unpacked from the store and verified.
    Own code of an installed distribution is not written, since it must be installed. Raises InputError for a folder that holds something,
    and for a recipe file that the plan does not tell; MissingError if the store lacks own code; IntegrityError if that is damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"There is a {folder} already.", where="--to", do_next="Name a new folder.")
    document = parse(text, "experiment.yaml")
    recipes = dict(_recipes(document, plan))
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.yaml"]
    written[0].write_text(text_with(text, document.values, _moved(document, plan, recipes), NOTE), encoding="utf-8")
    swept = document.values.get("sweep", {})
    for file, recipe in recipes.values():
        known = {name: value for name, value in as_written(recipe, swept).items() if value is not None}
        written.append(folder / file)
        written[-1].write_text(text_of(known), encoding="utf-8")
    for package, content in own_code(plan).items():
        if not installed(content):
            written += _unpacked(store, package, content, folder)
    return written


def _recipes(experiment: Document, plan: Plan) -> Iterator[tuple[str, tuple[str, Recipe]]]:
    """For each recipe file that the experiment names: a name for the new file, and the recipe at its first point of a sweep."""
    named = {task.subject.recipe: task.subject.sweep.of for task in plan if task.subject.sweep}
    of: dict[str, Recipe] = {}
    for name, recipe in plan.recipes.items():
        base = named.get(name, name)
        of.setdefault(base, recipe.model_copy(update={"name": base}))
    left = {name: recipe for name, recipe in of.items() if name not in experiment.values["recipes"]}
    files = recipe_files(experiment)
    matched = {file: left.pop(title) for file in files if (title := f"own/{Path(file).stem}") in left}
    others = [file for file in files if file not in matched]
    if len(others) > 1 or len(others) != len(left):
        what = f"The run's plan does not tell which of its recipes were in {', '.join(others) or ', '.join(files)}."
        raise InputError(what, where="experiment.yaml", do_next="Take the experiment with --experiment, and put these files beside it.")
    matched |= dict(zip(others, left.values(), strict=True))
    taken: set[str] = set()
    for file in files:
        stem, number = Path(file).stem, 1
        while (new := f"recipe-{stem}{'' if number == 1 else f'-{number}'}.yaml") in taken:
            number += 1
        taken.add(new)
        yield file, (new, matched[file])


def _moved(experiment: Document, plan: Plan, recipes: Mapping[str, tuple[str, Recipe]]) -> dict[str, Any]:
    """The experiment's settings with paths that hold in another folder."""
    values = dict(experiment.values)
    values["recipes"] = [recipes[each][0] if each in recipes else each for each in values["recipes"]]
    if values.get("code") is not None:
        values["code"] = "."
    for task in plan:
        kind = WEIGHTS.get(str(task.settings.get("extractor")), "") if task.stage == "extractor" else ""
        if values.get(f"{kind}_weights") and task.settings.get("source"):
            values[f"{kind}_weights"] = task.settings["source"]
    for setting in values.get("overrides", {}).keys() & set(FILES):
        section, _, name = setting.partition(".")
        whole = next((getattr(each, name) for recipe in plan.recipes.values() if (each := getattr(recipe, section))), None)
        values["overrides"] = {**values["overrides"], setting: whole or values["overrides"][setting]}
    return values


def _unpacked(store: Store, package: str, content: str, folder: Path) -> Iterator[Path]:
    """Write a package of own code below the folder, from its verified files in the store."""
    with tempfile.TemporaryDirectory() as scratch:
        source = take(store, content_digest(content), Path(scratch))
        if source is None:
            what = f"The store has no longer the own code '{package}' that made the result."
            raise MissingError(what, where=code_address(store, content), do_next=f"Put files of the content {content} there.")
        shutil.copytree(source, folder, dirs_exist_ok=True)
        yield from (folder / each.name for each in sorted(source.iterdir()))
