"""Whether the data that a user brought are enough for what the experiment measures: said before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edm2core.addresses import is_url
from edm2core.config.settings import DataSettings, Recipe
from edm2core.data.files import check_archive
from edm2core.data.folders import Survey
from edm2core.data.split import enough_to_probe
from edm2core.errors import InputError
from edm2core.metrics.names import FRECHET
from edm2core.plan.experiment import Experiment
from edm2core.registry import EXTRACTORS, load

Surveys = dict[tuple[str, float], Survey]  # source and test share: what is known of it


def survey_data(experiment: Experiment) -> Surveys:
    """What names and headers say of the images that lie on this disk.

    Raises InputError for a folder or zip that cannot be read so, and for what is no archive where one is needed.
    """
    brought = [recipe.data for recipe in experiment.recipes if not recipe.data.facts.builtin]
    for source in {str(data.source) for data in brought if not data.facts.survey}:
        if not is_url(source) and not Path(source).is_dir():
            check_archive(Path(source))
    asked = {(*_asked(data), data.facts.survey) for data in brought if data.facts.survey and not is_url(str(data.source))}
    return {(source, share): load(survey)(Path(source), share) for source, share, survey in sorted(asked)}


def is_revised(data: DataSettings, surveys: Surveys) -> bool:
    """Whether the first version of the reader could have given other images: of those behind a URL nobody knows."""
    return bool(data.facts.survey) and (is_url(str(data.source)) or surveys[_asked(data)].revised)


def _asked(data: DataSettings) -> tuple[str, float]:
    return str(data.source), data.test_share


def check_data(experiment: Experiment, left_out: Collection[str], surveys: Surveys) -> None:
    """That every recipe's data have images enough for the metrics that are not left out, and for the probe.

    What is only known of folders and zips on this disk; a data set behind a URL is judged once it is there. Raises InputError.
    """
    for recipe in experiment.recipes:
        where = f"data.source: {recipe.data.source}"
        if found := surveys.get(_asked(recipe.data)):
            _enough_to_compare(experiment, recipe, left_out, sum(own.train for own in found.counts), where)
            _conditions(recipe, len(found.counts))
            if experiment.probe:
                enough_to_probe(found.counts, recipe.probe.holds_out, where)
        elif recipe.data.facts.builtin:
            _conditions(recipe, recipe.data.facts.classes or 0)
            if experiment.probe and not recipe.data.test_share:
                enough_to_probe([], recipe.probe.holds_out, f"{recipe.name}: data.test_share")


def _enough_to_compare(experiment: Experiment, recipe: Recipe, left_out: Collection[str], count: int, where: str) -> None:
    imported = recipe.reference.extractor if recipe.reference else None
    for metric in experiment.metrics[recipe.name]:
        if metric.result in left_out or metric.extractor == imported or count >= metric.least_images:
            continue
        features = EXTRACTORS[metric.extractor].dimensions
        why = f", since a covariance of {features} features needs them" if metric.name in FRECHET else ""
        raise InputError(
            f"The data of {recipe.name} have {count} images for training, and '{metric.result}' needs at least {metric.least_images}{why}.",
            where=where,
            do_next="Add images, or ask for what needs fewer: kid 1000, fd_filters 55 (features for small sets, which need no weights), "
            "and precision, recall, density, coverage and memorisation 6 in any features, as precision_filters.",
        )


def _conditions(recipe: Recipe, classes: int) -> None:
    if recipe.network.classes not in (0, classes):
        raise InputError(
            f"network.classes of {recipe.name} is {recipe.network.classes}; the data set has {classes} classes.",
            where=f"network.classes: {recipe.network.classes}",
            do_next=f"Set network.classes to {classes}, or to 0 for an unconditional network.",
        )
