"""Metrics by name: each a function of one set of features and a reference, so that one pass over the images serves several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError
from edm2core.metrics.extractors import INCEPTION
from edm2core.metrics.statistics import Statistics, frechet_distance, statistics

Metric = Callable[[NDArray[np.float32], Statistics], float]


def _frechet(features: NDArray[np.float32], reference: Statistics) -> float:
    return frechet_distance(statistics(features), reference)


METRICS: dict[str, Metric] = {"fid": _frechet, "fd": _frechet}


def metric_values(names: Sequence[str], extractor: str, features: NDArray[np.float32], reference: Statistics) -> dict[str, float]:
    """Every metric's value under the name that results use: `fid` in Inception's features, `fd_<extractor>` in any other.

    Raises InputError for a metric that is not known or not of this extractor, and for too few images.
    """
    return {result_name(name, extractor): METRICS[name](features, reference) for name in names}


def result_name(metric: str, extractor: str) -> str:
    """The name of a metric's value in results; a distance in other features than Inception's is not FID."""
    if metric not in METRICS:
        raise InputError(f"There is no metric {metric!r}.", where="metrics", do_next=f"Ask for one of {', '.join(METRICS)}.")
    if metric == "fid" and extractor != INCEPTION.name:
        raise InputError(
            f"FID is a distance in Inception's features, not in the {extractor} features.", where="metrics", do_next="Ask for 'fd'."
        )
    return f"fd_{extractor}" if metric == "fd" else metric
