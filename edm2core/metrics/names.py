"""Metrics by name: which there are, in which extractor's features, what they are called, how many images they need. No torch."""

from __future__ import annotations

from typing import NamedTuple

EXTRACTORS = {"inception": 2048, "pytorch_fid": 2048, "dinov2": 1024, "digits": 64, "filters": 54}
"""Feature extractors and the dimensions of their features; `pytorch_fid` is Inception behind pytorch-fid's resize,
`filters` are for small sets of any images."""

WEIGHTS = {"inception": "inception", "pytorch_fid": "inception", "dinov2": "dinov2"}
"""Extractors that are made from a file which the user brings, and whose weights it holds."""
INCEPTIONS = ("inception", "pytorch_fid")
FRECHET = ("fid", "fd")
SUBSET = 1000  # images in each of KID's subsets
SPLITS = 10  # parts of the samples that the Inception score is averaged over
MOST_NEIGHBOURS = 5  # that density and coverage count

LABELS = {
    "fid": "FID",
    "fd": "FD",
    "kid": "KID",
    "is": "Inception score",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "memorisation": "Memorised share",
}
METRICS = tuple(LABELS)
IN_WORDS = {
    "inception": "Inception features",
    "pytorch_fid": "Inception features, pytorch-fid's resize",
    "dinov2": "DINOv2 features",
    "digits": "digits features",
    "filters": "filter features",
}
IMPORTED = "_imported"  # ends the name, in results, of a distance from statistics that others took
HIGHER_IS_BETTER = ("is", "precision", "recall", "density", "coverage")


class Metric(NamedTuple):
    """A metric in one extractor's features."""

    name: str
    extractor: str

    @property
    def result(self) -> str:
        """Its name in results: it carries the extractor, since values of different extractors cannot be compared."""
        plain = self.extractor == "inception" and self.name in ("fid", "kid", "is")
        return self.name if plain else f"{self.name}_{self.extractor}"

    @property
    def label(self) -> str:
        """Its name for a person; what is not in Inception's features is neither FID nor KID."""
        if self == ("fid", "pytorch_fid"):
            return "FID (pytorch-fid's resize)"
        name = "Kernel distance" if self.name == "kid" and self.extractor not in INCEPTIONS else LABELS[self.name]
        return name if self.result == self.name else f"{name} ({IN_WORDS[self.extractor]})"

    @property
    def least_images(self) -> int:
        """How many images a set needs at least for the metric to be defined: a covariance of d features has full rank from d + 1 on."""
        if self.name in FRECHET:
            return EXTRACTORS[self.extractor] + 1
        return {"kid": SUBSET, "is": SPLITS}.get(self.name, MOST_NEIGHBOURS + 1)


def metric(text: str, data_format: str) -> Metric:
    """The metric that an experiment's `metrics` names: `fid`, or with an extractor `precision_dinov2`.

    Without one, FID and the Inception score are in Inception's features, the others in the data set's own where it has any (digits),
    else in Inception's. Raises ValueError, in words, for a metric that does not exist.
    """
    own = "digits" if data_format == "digits" else None
    name, extractor = split(text)
    if name not in METRICS:
        raise ValueError(f"There is no metric '{text}'.")
    if extractor is None and name == "fd" and own is None:
        raise ValueError(
            "'fd' is in a data set's own features, which only digits has; name others, as in 'fd_dinov2' (or 'fd_filters', which needs no "
            "weights and few images), or ask for 'fid'."
        )
    found = Metric(name, extractor or ("inception" if name in ("fid", "is") else own or "inception"))
    if found.name in ("fid", "is") and found.extractor not in INCEPTIONS:
        raise ValueError(f"{LABELS[found.name]} is defined in Inception's features, not in the {IN_WORDS[found.extractor]}.")
    if found.extractor == "digits" and own is None:
        raise ValueError("The digits features are of digits alone.")
    return found


def split(text: str) -> tuple[str, str | None]:
    """The metric and the extractor that a name, as in results, is put together from."""
    text = text.removesuffix(IMPORTED)
    for extractor in EXTRACTORS:
        if text.endswith(f"_{extractor}"):
            return text.removesuffix(f"_{extractor}"), extractor
    return text, None


def label(result: str) -> str | None:
    """The label of a metric by its name in results; None if it is none of these."""
    name, extractor = split(result)
    if name not in METRICS:
        return None
    return Metric(name, extractor or "inception").label + (" from an imported reference" if result.endswith(IMPORTED) else "")


def in_words(metrics: tuple[Metric, ...]) -> str:
    """Several metrics of one extractor, for a title."""
    if len(metrics) == 1:
        return metrics[0].label
    return f"{', '.join(LABELS[each.name] for each in metrics)} ({IN_WORDS[metrics[0].extractor]})"
