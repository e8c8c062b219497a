"""The Gaussian that stands for a set of images in a Fréchet distance. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Statistics:
    """float64 mean [d] and covariance [d, d] (divisor n - 1) of n images' features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int
