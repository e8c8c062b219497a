"""The kernel distance (KID) and its standard error."""

import numpy as np
from numpy.typing import NDArray
from torch_fidelity.defaults import DEFAULTS

from edm2core.metrics.compared import Compared, Value

SUBSET = 1000  # images in each subset
SUBSETS = 100  # that the distance is the mean over


def kernel(compared: Compared) -> dict[str, Value]:
    """KID, or the kernel distance in other features."""
    return {"kid": Value(*kernel_distance(compared.features, compared.real))}


def kernel_distance(samples: NDArray[np.float32], real: NDArray[np.float32]) -> tuple[float, float]:
    """The unbiased squared MMD with a cubic kernel, mean over subsets, and its standard error over other samples, the real images fixed.

    Bińkowski et al., arXiv 1801.01401, section 4; the subsets are torch-fidelity's, and so is the value. The error is a jackknife's over
    samples: each sample is left out of all subsets that hold it, so that their overlap counts (Shao & Tu 1995, "The Jackknife and
    Bootstrap", section 1.4). Where samples and images are alike it is too large by √2 at most (Efron & Stein 1981).
    """
    draws = np.random.RandomState(DEFAULTS["rng_seed"])
    distances, moved = [], np.zeros(len(samples))
    for _ in range(SUBSETS):
        rows, columns = (draws.choice(len(features), SUBSET, replace=False) for features in (samples, real))
        x, y = (np.asarray(features[chosen], np.float64) for features, chosen in ((samples, rows), (real, columns)))
        own, other = _sums_over_others(x), _sums_over_others(y)
        across = _kernels(x, y).mean(axis=1)
        distances.append(own.sum() / (SUBSET * (SUBSET - 1)) + other.sum() / (SUBSET * (SUBSET - 1)) - 2 * across.mean())
        without = (own.sum() - 2 * own) / ((SUBSET - 1) * (SUBSET - 2)) - 2 * (across.sum() - across) / (SUBSET - 1)
        moved[rows] += without - without.mean()
    variance = (SUBSET - 1) / SUBSET * np.square(moved / SUBSETS).sum()
    return float(np.mean(distances)), float(np.sqrt(variance))


def _sums_over_others(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each row, the sum of its kernels with all other rows."""
    kernels = _kernels(x, x)
    sums: NDArray[np.float64] = kernels.sum(axis=1) - np.diagonal(kernels)
    return sums


def _kernels(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x·y / d + 1)³ of each pair."""
    products: NDArray[np.float64] = x @ y.T / x.shape[1] + 1
    return products * products * products  # a power takes a hundred times as long
