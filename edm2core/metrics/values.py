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

from edm2core.errors import InputError
from edm2core.metrics.kernel import kernel_distance
from edm2core.metrics.names import MOST_NEIGHBOURS, SPLITS, Metric
from edm2core.metrics.neighbours import Memorised, density_and_coverage, memorised, precision_and_recall
from edm2core.metrics.statistics import Reference, frechet_distance, frechet_error, statistics


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

    @property
    def real(self) -> NDArray[np.float32]:
        """The training images' features."""
        if self.reference.features is None:
            raise ValueError("these metrics need the reference's features")
        return self.reference.features

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The samples' and the training images' features, on the device."""
        return tuple(torch.tensor(np.asarray(features), device=self.device) for features in (self.features, self.real))  # type: ignore[return-value]


def metric_values(metrics: Sequence[Metric], compared: Compared) -> dict[str, Value]:
    """Every metric's value under its name in results. Raises InputError for too few images, and for features that are not finite."""
    if not np.isfinite(compared.features).all():
        raise InputError("The samples' features are not finite.", do_next="Look at the samples and at the extractor's weights.")
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
    return {"kid": Value(*kernel_distance(compared.features, compared.real))}


def _score(compared: Compared) -> dict[str, Value]:
    """Salimans et al., arXiv 1606.03498, section 4: a mean over tenths of the samples, shuffled; the library's deviation has n below it."""
    if compared.logits is None:
        raise ValueError("the Inception score needs an extractor that classifies")
    library = isc_features_to_metric(compared.logits(), SPLITS)
    return {"is": Value(library[KEY_METRIC_ISC_MEAN], library[KEY_METRIC_ISC_STD] / np.sqrt(SPLITS - 1))}


def _precision(compared: Compared) -> dict[str, Value]:
    precision, recall = precision_and_recall(*compared.tensors())
    return {"precision": Value(precision), "recall": Value(recall)}


def _density(compared: Compared) -> dict[str, Value]:
    density, coverage = density_and_coverage(*compared.tensors(), MOST_NEIGHBOURS)
    return {"density": Value(density), "coverage": Value(coverage)}


def _memorisation(compared: Compared) -> dict[str, Value]:
    compared.memorised = memorised(*compared.tensors())
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
