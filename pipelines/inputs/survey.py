"""Surveys the images on this disk before anything runs: their classes, and how many images each class has."""

from __future__ import annotations

from pathlib import Path

from edm2core.addresses import is_url
from edm2core.config.settings import DataSettings
from edm2core.data.files import check_archive
from edm2core.data.folders import Survey
from edm2core.plan.experiment import Experiment
from edm2core.registry import load

Surveys = dict[tuple[str, float], Survey]  # by source and test share


def survey_data(experiment: Experiment) -> Surveys:
    """Survey the data of an experiment that are on this disk, from the names and headers of the images.

    Raises InputError for a folder or zip that cannot be surveyed, and for a file that is no archive where one is needed.
    """
    brought = [recipe.data for recipe in experiment.recipes if not recipe.data.facts.builtin]
    for source in {str(data.source) for data in brought if not data.facts.survey}:
        if not is_url(source) and not Path(source).is_dir():
            check_archive(Path(source))
    asked = {(*_source_and_share(data), data.facts.survey) for data in brought if data.facts.survey and not is_url(str(data.source))}
    return {(source, share): load(survey)(Path(source), share) for source, share, survey in sorted(asked)}


def is_revised(data: DataSettings, surveys: Surveys) -> bool:
    """Whether the first version of the reader could have read other images. It is not known for a URL, so the answer is yes."""
    return bool(data.facts.survey) and (is_url(str(data.source)) or surveys[_source_and_share(data)].revised)


def survey_of(data: DataSettings, surveys: Surveys) -> Survey | None:
    """The survey of these data; None for a URL, and for formats that are not surveyed."""
    return surveys.get(_source_and_share(data))


def _source_and_share(data: DataSettings) -> tuple[str, float]:
    return str(data.source), data.test_share
