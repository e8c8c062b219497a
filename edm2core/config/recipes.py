"""Published recipes by name, the user's own by path, and changes laid over either."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from edm2core.config.settings import Recipe
from edm2core.config.validate import build, unknown
from edm2core.config.yaml_file import Document, Origin, Place, load, parse
from edm2core.errors import InputError


def recipe_names() -> list[str]:
    """All published recipes: cifar10/C, cifar10/E, …"""
    root = resources.files("edm2core.config") / "recipes"
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.yaml')}"
        for folder in root.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    )


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A published recipe ("cifar10/C") or a recipe file's, with dotted settings replaced ({"network.dropout": 0.0}).

    Raises InputError for an unknown name or a setting that is unknown or impossible.
    """
    document = recipe_document(name)
    for setting, value in (overrides or {}).items():
        document = lay(document, setting, value, Origin("overrides", 1))
    return build(Recipe, document)


def recipe_document(name: str, base: Path = Path()) -> Document:
    """The settings of a recipe with its `extends` filled in; a name that ends in .yaml is a path, relative to `base`."""
    return _document(name, base, ())


def _document(name: str, base: Path, seen: tuple[str, ...]) -> Document:
    if name in seen:
        raise InputError(f"The recipe extends itself: {' → '.join((*seen, name))}.", where=name, do_next="Remove one `extends`.")
    if name.endswith((".yaml", ".yml")):
        path = base / name
        document, base, title = load(path), path.parent, f"own/{path.stem}"
    else:
        if name not in recipe_names():
            raise InputError(
                unknown("recipe", name, name, recipe_names()),
                where=name,
                do_next="`edm2 recipes` lists them; a path to your own must end in .yaml.",
            )
        file = resources.files("edm2core.config") / "recipes" / f"{name}.yaml"
        document, title = parse(file.read_text(encoding="utf-8"), f"recipes/{name}.yaml"), name
    parent = document.values.get("extends")
    if parent is not None and not isinstance(parent, str):
        raise InputError("'extends' must name a recipe.", where=str(document.origin(("extends",))))
    own = Document({k: v for k, v in document.values.items() if k != "extends"}, document.origins)
    merged = own if parent is None else _merge(_document(parent, base, (*seen, name)), own)
    if "name" not in own.values:
        merged = Document({**merged.values, "name": title}, {**merged.origins, ("name",): own.origin(())})
    return merged


def _merge(below: Document, above: Document) -> Document:
    def merged(low: Any, high: Any) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            return {**low, **{k: merged(low.get(k), v) for k, v in high.items()}}
        return high

    values: dict[str, Any] = merged(below.values, above.values)
    return Document(values, {**below.origins, **above.origins})


def lay(document: Document, setting: str, value: Any, origin: Origin) -> Document:
    """The document with one dotted setting ("network.dropout") replaced, remembering where the new value was written."""
    place: Place = tuple(setting.split("."))
    values: Any = value
    for part in reversed(place):
        values = {part: values}
    return _merge(
        document,
        Document(
            values, {place[:end]: origin for end in range(1, len(place) + 1)} if place[:-1] not in document.origins else {place: origin}
        ),
    )
