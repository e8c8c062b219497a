"""Metrics by name: in which extractor's features, what they are called, how many images they need. No torch."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from edm2core.registry import EXTRACTORS, FORMATS, INCEPTIONS, METRICS, is_own

FRECHET = tuple(name for name, metric in METRICS.items() if metric.needs == "statistics")
IMAGES = "images"  # in place of an extractor: the user's own metrics compare images themselves
IMPORTED = "_imported"  # ends the name, in results, of a distance from statistics that others took


class Metric(NamedTuple):
    """A metric in one extractor's features."""

    name: str
    extractor: str
    options: tuple[tuple[str, Any], ...] = ()  # the settings of an own metric that differ from its defaults

    @property
    def result(self) -> str:
        """Its name in results: it carries the extractor, since values of different extractors cannot be compared."""
        if self.extractor == IMAGES:
            own = [self.name.rpartition(":")[2], *(f"{name}_{_in_a_name(value)}" for name, value in self.options)]
            return "_".join(own)
        plain = self.extractor == "inception" and METRICS[self.name].inception
        return self.name if plain else f"{self.name}_{self.extractor}"

    @property
    def label(self) -> str:
        """Its name for a person. It says FID and KID of Inception's features alone."""
        if (self.name, self.extractor) == ("fid", "pytorch_fid"):
            return "FID (pytorch-fid's resize)"
        alone = self.result == self.name or self.extractor == IMAGES
        return self.short_label if alone else f"{self.short_label} ({EXTRACTORS[self.extractor].words})"

    @property
    def short_label(self) -> str:
        """The label without the features."""
        facts = METRICS[self.name]
        if self.options:
            return ", ".join([facts.words, *(f"{name} {_in_words(value)}" for name, value in self.options)])
        return facts.words if self.extractor in INCEPTIONS else facts.words_elsewhere or facts.words

    @property
    def least_images(self) -> int:
        """How many images a set needs at least for the metric to be defined: a covariance of d features has full rank from d + 1 on."""
        facts = METRICS[self.name]
        return EXTRACTORS[self.extractor].dimensions + 1 if self.name in FRECHET or facts.by_class else facts.least_images


def own_metrics(settings: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The own metrics that a task measures, by its settings: `metrics`, and `own` where they have settings."""
    options = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in sorted(settings.get("own", {}).items()))
    return tuple(Metric(name, IMAGES, options) for name in settings["metrics"] if is_own(name))


def _in_words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)


def _in_a_name(value: Any) -> str:
    """A value as a part of a name in results, of letters, digits, dots, dashes and underscores."""
    text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return re.sub(r"[^\w.-]", "-", text, flags=re.ASCII)


def metric(text: str, data_format: str) -> Metric:
    """The metric that an experiment's `metrics` names: `fid`, or with an extractor `precision_dinov2`.

    Without one, FID and the Inception score are in Inception's features, the others in the data set's own where it has any (digits),
    else in Inception's. Raises ValueError, in words, for a metric that does not exist.
    """
    if is_own(text):
        return Metric(text, IMAGES)
    own = FORMATS[data_format].extractor
    name, extractor = split(text)
    if name not in METRICS:
        raise ValueError(f"There is no metric '{text}'.")
    if extractor is None and name == "fd" and not own:
        raise ValueError(
            "'fd' is in a data set's own features, which only digits has; name others, as in 'fd_dinov2' (or 'fd_filters', which needs no "
            "weights and few images), or ask for 'fid'."
        )
    facts = METRICS[name]
    extractor = extractor or ("inception" if facts.inception == "only" else own or "inception")
    if facts.inception == "only" and extractor not in INCEPTIONS:
        raise ValueError(f"{facts.words} is defined in Inception's features, not in the {EXTRACTORS[extractor].words}.")
    if extractor != own and any(extractor == each.extractor for each in FORMATS.values()):
        raise ValueError(f"The {EXTRACTORS[extractor].words} are of {extractor} alone.")
    return Metric(name, extractor)


def split(text: str) -> tuple[str, str | None]:
    """The metric and the extractor in a metric's name in results; None if the name says no extractor."""
    text = text.removesuffix(IMPORTED)
    for extractor in EXTRACTORS:
        if text.endswith(f"_{extractor}"):
            return text.removesuffix(f"_{extractor}"), extractor
    return text, None


def label(result: str) -> str | None:
    """The label of a metric by its name in results; None if there is no such metric."""
    name, extractor = split(result)
    if name not in METRICS:
        return None
    return Metric(name, extractor or "inception").label + (" from an imported reference" if result.endswith(IMPORTED) else "")


def in_words(metrics: tuple[Metric, ...]) -> str:
    """Several metrics of one extractor, for a title."""
    return metrics[0].label if len(metrics) == 1 else f"{short_names(metrics)} ({EXTRACTORS[metrics[0].extractor].words})"


def short_names(metrics: tuple[Metric, ...]) -> str:
    """Several metrics of one extractor, without naming it: FD, KID."""
    return metrics[0].short_label if len(metrics) == 1 else ", ".join(METRICS[each.name].words for each in metrics)
