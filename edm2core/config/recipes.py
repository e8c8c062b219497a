"""Reads published recipes by name and the user's own by path, and replaces settings of either."""

from collections.abc import Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

from edm2core.config.settings import Recipe
from edm2core.config.validate import build, unknown
from edm2core.config.yaml_file import Document, Origin, SettingPath, load, parse
from edm2core.errors import InputError
from edm2core.paths import local_path

HERE = Path(__file__).parent
LADDER = "ladder/"  # holds what each rung of the paper's ladder changes; these are no recipes, but recipes extend them


def recipe_names() -> list[str]:
    """All published recipes: cifar10/C, cifar10/E, …, paper/cifar10/A, …"""
    return _names(HERE / "recipes")


def rung_names() -> list[str]:
    """The rungs of the paper's ladder from the bottom: ladder/A, …"""
    return [f"{LADDER}{name}" for name in _names(HERE / "ladder")]


def _names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A published recipe ("cifar10/C") or a recipe file's, with dotted settings replaced ({"network.dropout": 0.0}).

    Raises InputError for an unknown name or a setting that is unknown or impossible.
    """
    document = recipe_document(name)
    for setting, value in (overrides or {}).items():
        document = lay(document, setting, value, Origin("overrides", 1))
    return build(Recipe, document)


def recipe_document(name: str, base: Path = Path(), named_in: str = "", extending: tuple[str, ...] = ()) -> Document:
    """The settings of a recipe over those of the recipes that it extends, of which a later one goes over an earlier one.

    A name ending in .yaml is a path from `base`. `extending` are the recipes that extend it. Raises InputError for a recipe that is not
    there, which gives `named_in` as the place that names it, and as `load` for a file that is wrong.
    """
    named_in = named_in or name
    if name in extending:
        raise InputError(f"The recipe extends itself: {' → '.join((*extending, name))}.", where=named_in, do_next="Remove one `extends`.")
    if name.endswith((".yaml", ".yml")):
        path = base / local_path(name, named_in)
        if not path.exists():
            do_next = "Check the path, which is relative to the file that names it; `edm2 recipes` lists what is built in."
            raise InputError(f"There is no recipe file {path}.", where=named_in, do_next=do_next)
        document, base, title = load(path), path.parent, f"own/{path.stem}"
    else:
        if name not in (rung_names() if extending and name.startswith(LADDER) else recipe_names()):
            do_next = "`edm2 recipes` lists them; a path to your own must end in .yaml."
            raise InputError(unknown("recipe", name, name, recipe_names()), where=named_in, do_next=do_next)
        document, title = _bundled(name if name.startswith(LADDER) else f"recipes/{name}"), name
    parents = document.values.get("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise InputError("'extends' must name a recipe, or a list of them.", where=str(document.origin(("extends",))))
    own = Document({k: v for k, v in document.values.items() if k != "extends"}, document.origins)
    line = str(document.origin(("extends",)))
    below = [recipe_document(parent, base, line, (*extending, name)) for parent in parents]
    merged = reduce(_merge, [*below, own])
    if "name" not in own.values:
        merged = Document({**merged.values, "name": title}, {**merged.origins, ("name",): own.origin(())})
    return merged


@cache  # the ladder's and the data sets' files are parts of many recipes
def _bundled(name: str) -> Document:
    """A file of this package. Every caller gets the same document, which nobody changes."""
    return parse((HERE / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def _merge(below: Document, above: Document) -> Document:
    def merged(low: Any, high: Any) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            return {**low, **{k: merged(low.get(k), v) for k, v in high.items()}}
        return high

    values: dict[str, Any] = merged(below.values, above.values)
    return Document(values, {**below.origins, **above.origins})


def lay(document: Document, setting: str, value: Any, origin: Origin) -> Document:
    """The document with one dotted setting ("network.dropout") replaced. `origin` is where the new value was written."""
    path: SettingPath = tuple(setting.split("."))
    origins = {written: at for written, at in document.origins.items() if written[: len(path)] != path}
    inside: Any = document.values
    for end, part in enumerate(path[:-1], start=1):
        inside = inside.get(part) if isinstance(inside, dict) else None
        if not isinstance(inside, dict):  # a section that is not there yet begins in the new line too
            origins[path[:end]] = origin
    values = reduce(lambda nested, part: {part: nested}, reversed(path), value)
    return _merge(Document(document.values, origins), Document(values, {path: origin}))
