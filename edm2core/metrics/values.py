"""The values of metrics, all from one set of features, so that one pass over the images serves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from edm2core.metrics.names import MOST_NEIGHBOURS, SPLITS, SUBSET, Metric
from edm2core.metrics.neighbours import Memorised, density_and_coverage, memorised
from edm2core.metrics.statistics import Reference, frechet_distance, frechet_error, statistics

SUBSETS = 100  # that KID is the mean over


class Value(NamedTuple):
    """A metric's value, and its standard error from the sampling of images, where it has one."""

    value: float
    error: float | None = None


@dataclass
class Compared:
    """Samples and what they are compared with: `features` float32 [n, d]; `logits` gives [n, classes] where the extractor classifies."""

    features: NDArray[np.float32]
    reference: Reference
    device: torch.device
    logits: Callable[[], Tensor] | None = None
    memorised: Memorised | None = field(default=None, init=False)  # once that metric was asked for

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The samples' and the reference's features."""
        if self.reference.features is None:
            raise ValueError("these metrics need the reference's features")
        return tuple(torch.tensor(np.asarray(a), dtype=dtype) for a in (self.features, self.reference.features))  # type: ignore[return-value]


def metric_values(metrics: Sequence[Metric], compared: Compared) -> dict[str, Value]:
    """Every metric's value under its name in results. Raises InputError for too few images, and for features that are not finite."""
    asked, found = {metric.name for metric in metrics}, dict[str, Value]()
    for names, values in FAMILIES.items():
        if asked & set(names):
            found |= values(compared)
    return {metric.result: found[metric.name] for metric in metrics}


def _frechet(compared: Compared) -> dict[str, Value]:
    own, reference = statistics(compared.features), compared.reference.statistics
    value = Value(frechet_distance(own, reference), frechet_error(compared.features, reference))
    return {"fid": value, "fd": value}


def _kernel(compared: Compared) -> dict[str, Value]:
    """Bińkowski et al., arXiv 1801.01401, section 4: a mean over subsets.

    Its variance has two parts: that of the choice of subsets, and that of the n samples which all of them come from; the deviation
    between subsets is worth m/n of its square for the latter, at most.
    """
    library = kid_features_to_metric(*compared.tensors(torch.float64), kid_subsets=SUBSETS, kid_subset_size=SUBSET, verbose=False)
    error = library[KEY_METRIC_KID_STD] * np.sqrt(1 / SUBSETS + SUBSET / len(compared.features))
    return {"kid": Value(library[KEY_METRIC_KID_MEAN], float(error))}


def _score(compared: Compared) -> dict[str, Value]:
    """Salimans et al., arXiv 1606.03498, section 4: a mean over tenths of the samples, shuffled."""
    if compared.logits is None:
        raise ValueError("the Inception score needs an extractor that classifies")
    library = isc_features_to_metric(compared.logits(), SPLITS)
    return {"is": Value(library[KEY_METRIC_ISC_MEAN], library[KEY_METRIC_ISC_STD] / np.sqrt(SPLITS))}


def _precision(compared: Compared) -> dict[str, Value]:
    """Kynkäänniemi et al., arXiv 1904.06991, with 3 neighbours."""
    samples, real = (features.to(compared.device) for features in compared.tensors(torch.float32))
    library = prc_features_to_metric(samples, real, save_cpu_ram=True, verbose=False)
    return {name: Value(library[name]) for name in ("precision", "recall")}


def _density(compared: Compared) -> dict[str, Value]:
    samples, real = (features.to(compared.device) for features in compared.tensors(torch.float32))
    density, coverage = density_and_coverage(samples, real, MOST_NEIGHBOURS)
    return {"density": Value(density), "coverage": Value(coverage)}


def _memorisation(compared: Compared) -> dict[str, Value]:
    samples, training = (features.to(compared.device) for features in compared.tensors(torch.float32))
    compared.memorised = memorised(samples, training)
    return {"memorisation": Value(compared.memorised.share)}


FAMILIES: dict[tuple[str, ...], Callable[[Compared], dict[str, Value]]] = {
    ("fid", "fd"): _frechet,
    ("kid",): _kernel,
    ("is",): _score,
    ("precision", "recall"): _precision,
    ("density", "coverage"): _density,
    ("memorisation",): _memorisation,
}
"""Metrics that are computed together, and how."""
