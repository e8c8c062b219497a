"""Computes several metrics from one set of features, so that one pass over the images serves them all."""

from collections.abc import Sequence

import numpy as np

from edm2core.errors import InputError
from edm2core.metrics.compared import Compared, Value
from edm2core.metrics.names import Metric
from edm2core.registry import METRICS, load

COMPUTE = {name: load(metric.compute) for name, metric in METRICS.items()}
"""Loaded with this module: the code of a running process does not change under it."""


def metric_values(metrics: Sequence[Metric], compared: Compared) -> dict[str, Value]:
    """Every metric's value under its name in results. Raises InputError for too few images, and for features that are not finite."""
    if not np.isfinite(compared.features).all():
        raise InputError("The samples' features are not finite.", do_next="Look at the samples and at the extractor's weights.")
    values: dict[str, Value] = {}
    for compute in dict.fromkeys(COMPUTE[metric.name] for metric in metrics):  # each once: some give two metrics
        values |= compute(compared)
    return {metric.result: values[metric.name] for metric in metrics}
