"""Values that others published, beside ours only where the same thing was measured in the same way."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from edm2core.config import Recipe, load_recipe
from edm2core.metrics.names import IMPORTED
from edm2core.plan.keys import keyed
from edm2core.report.protocol import differences


@dataclass(frozen=True)
class Published:
    """A published value next to one of ours; `differs` is empty where the protocol is the same as far as it is stated."""

    recipe: str
    metric: str
    value: float
    epoch: int
    differs: tuple[str, ...]
    not_stated: tuple[str, ...]
    note: str
    source: str


@dataclass(frozen=True)
class Other:
    """A published value of another network or training on the same data."""

    what: str
    metric: str
    value: float
    source: str


def beside(recipe: Recipe, metric: str, epoch: int, facts: Mapping[str, Any]) -> Published | None:
    """The published value nearest to one of this recipe, after so many epochs, by this protocol: with the fewest differences, if any."""
    document = _document()
    candidates = []
    for entry in document["values"]:
        if entry["metric"] == metric.removesuffix(IMPORTED) and _recipe(entry["recipe"]).data.format == recipe.data.format:
            protocol = document["protocols"][entry["protocol"]]
            differs = [*_recipe_differences(recipe, entry["recipe"]), *differences(dict(facts), protocol["facts"])]
            differs += [f"imported reference statistics ({facts['origin']})"] if facts.get("origin") else []
            differs += [f"{epoch} epochs instead of {entry['epoch']}"] if epoch != entry["epoch"] else []
            source = document["sources"][entry["source"]]
            candidates.append(
                Published(
                    entry["recipe"],
                    metric,
                    entry["value"],
                    entry["epoch"],
                    tuple(differs),
                    tuple(protocol["not_stated"]),
                    entry.get("note", ""),
                    f"{source['name']}, {source['where']}",
                )
            )
    return min(candidates, key=lambda published: len(published.differs), default=None)


def others(dataset_format: str | None) -> list[Other]:
    """Published values on the same data by other networks or trainings."""
    document = _document()
    return [
        Other(entry["what"], entry["metric"], entry["value"], f"{source['name']}, {source['where']}")
        for entry in document["others"]
        if entry["dataset"] == dataset_format
        for source in [document["sources"][entry["source"]]]
    ]


@cache
def _document() -> dict[str, Any]:
    text = (resources.files("edm2core.report") / "published.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@cache
def _recipe(name: str) -> Recipe:
    """A recipe that published values are of."""
    return load_recipe(name)


def _recipe_differences(ours: Recipe, name: str) -> list[str]:
    """The settings that decide the training and differ from the published recipe's."""
    theirs, differs = _recipe(name), []
    for section in ("data", "network", "diffusion", "training"):
        mine, other = getattr(ours, section), getattr(theirs, section)
        for setting in sorted(keyed(mine).keys() | keyed(other).keys()):
            value, published = getattr(mine, setting), getattr(other, setting)
            if value != published and setting != "digest":
                differs.append(f"{section}.{setting} {_text(value)} instead of {_text(published)}")
    return differs


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
