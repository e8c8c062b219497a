"""The input of a metric, `Compared`, and its result, `Value`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from edm2core.metrics.neighbours import Memorised
    from edm2core.metrics.statistics import Reference


class Value(NamedTuple):
    """A metric's value and its standard error over draws of the samples, or None if the metric has no such error.

    `left_out` are the values without each block of the samples, from which a jackknife has the error. Two sets of samples whose blocks
    began from the same noise are compared more sharply by them than by two errors.
    """

    value: float
    error: float | None = None
    left_out: tuple[float, ...] = ()
    interval: tuple[float, float] | None = None  # at 95 %, where the metric has one of its own


@dataclass
class Compared:
    """Samples and the reference that they are compared with.

    `features` are the samples', float32 [n, d]; `logits` gives [n, classes] where the extractor classifies.
    """

    features: NDArray[np.float32]
    reference: Reference
    device: torch.device
    logits: Callable[[], Tensor] | None = None
    classes: Callable[[], tuple[NDArray[np.int64], NDArray[np.int64]]] | None = None  # of the samples and of the training images
    memorised: Memorised | None = field(default=None, init=False)  # set by the metric `memorisation`
    by_class: list[float] | None = field(default=None, init=False)  # each class's distance, set by the metric `fd_by_class`

    @property
    def real(self) -> NDArray[np.float32]:
        """The training images' features."""
        if self.reference.features is None:
            raise ValueError("these metrics need the reference's features")
        return self.reference.features

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The samples' and the training images' features, on the device."""
        samples, real = (torch.tensor(np.asarray(features), device=self.device) for features in (self.features, self.real))
        return samples, real
