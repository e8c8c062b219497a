"""Whether the data that a user brought are enough for what the experiment measures: said before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edm2core.config.experiment import Experiment
from edm2core.config.settings import Recipe
from edm2core.data.folders import images_per_class
from edm2core.data.split import ClassCount, enough_to_probe
from edm2core.errors import InputError
from edm2core.metrics.names import EXTRACTORS, FRECHET

DIGITS = 10  # classes of scikit-learn's


def check_data(experiment: Experiment, left_out: Collection[str]) -> None:
    """That every recipe's data have images enough for the metrics that are not left out, and for the probe.

    What is only known of folders and zips on this disk; a data set behind a URL is judged once it is there. Raises InputError.
    """
    counted: dict[tuple[str, float], list[ClassCount]] = {}
    for recipe in experiment.recipes:
        source = str(recipe.data.source)
        where = f"data.source: {source}"
        if recipe.data.format == "images" and "://" not in source:
            asked = (source, recipe.data.test_share)
            if asked not in counted:
                counted[asked] = images_per_class(Path(source), recipe.data.test_share)
            _enough_to_compare(experiment, recipe, left_out, sum(own.train for own in counted[asked]), where)
            _conditions(recipe, len(counted[asked]))
            if experiment.probe:
                enough_to_probe(counted[asked], recipe.probe.holds_out, where)
        elif recipe.data.format == "digits":
            _conditions(recipe, DIGITS)
            if experiment.probe and not recipe.data.test_share:
                enough_to_probe([], recipe.probe.holds_out, f"{recipe.name}: data.test_share")


def _enough_to_compare(experiment: Experiment, recipe: Recipe, left_out: Collection[str], count: int, where: str) -> None:
    imported = recipe.reference.extractor if recipe.reference else None
    for metric in experiment.metrics[recipe.name]:
        if metric.result in left_out or metric.extractor == imported or count >= metric.least_images:
            continue
        features = EXTRACTORS[metric.extractor]
        why = f", since a covariance of {features} features needs them" if metric.name in FRECHET else ""
        raise InputError(
            f"The data of {recipe.name} have {count} images for training, and '{metric.result}' needs at least {metric.least_images}{why}.",
            where=where,
            do_next="Add images, or ask for what needs fewer: kid 1000, and precision, recall, density, coverage and memorisation 6.",
        )


def _conditions(recipe: Recipe, classes: int) -> None:
    if recipe.network.classes not in (0, classes):
        raise InputError(
            f"network.classes of {recipe.name} is {recipe.network.classes}; the data set has {classes} classes.",
            where=f"network.classes: {recipe.network.classes}",
            do_next=f"Set network.classes to {classes}, or to 0 for an unconditional network.",
        )
