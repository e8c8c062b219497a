"""The Gaussian that stands for a set of images in a Fréchet distance, and reading one that others published. No torch.

Theirs are .npz files with `mu` and `sigma`, as NVlabs and pytorch-fid write them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.data.file_kinds import wrong
from edm2core.data.headers import array_headers, load_array

ADVICE = "Give an .npz with mu [d] and sigma [d, d], as NVlabs/edm's fid-refs and pytorch-fid's --save-stats are."


@dataclass(frozen=True)
class Statistics:
    """float64 mean [d] and covariance [d, d] (divisor n - 1) of n images' features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int


def read_npz(path: Path, n: int, dimensions: int) -> Statistics:
    """The mean and covariance of `n` images' features in a file, of which nothing is executed.

    Raises InputError as `arrays_of` does, and where sigma is no covariance.
    """
    mean, covariance = arrays_of(path, dimensions)
    scale = float(np.abs(covariance).max())
    lowest = float(np.linalg.eigvalsh(covariance)[0]) if np.allclose(covariance, covariance.T, atol=1e-6 * scale) else -np.inf
    if lowest < -1e-4 * scale or scale == 0:
        raise wrong(path, "sigma is no covariance: it is not symmetric and positive.", ADVICE)
    return Statistics(mean, covariance, n)


def arrays_of(path: Path, dimensions: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """mu and sigma, before the slow check of sigma. Raises InputError where they are missing, not finite or of other dimensions."""
    held = array_headers(path, ADVICE)
    if missing := [name for name in ("mu", "sigma") if name not in held]:
        raise wrong(path, f"These are no statistics: there is no {' and no '.join(missing)}.", ADVICE)
    mu, sigma = held["mu"], held["sigma"]
    if (mu.shape, sigma.shape) != ((dimensions,), (dimensions, dimensions)):
        shapes = f"The statistics have shapes {list(mu.shape)} and {list(sigma.shape)}; these features have {dimensions} dimensions."
        raise wrong(path, shapes, "Correct reference.extractor, or give statistics in its features.")
    if mu.dtype.kind not in "fiu" or sigma.dtype.kind not in "fiu":
        raise wrong(path, "These are no statistics: mu and sigma are no real numbers.", ADVICE)
    mean, covariance = (load_array(path, name, ADVICE).astype(np.float64, copy=False) for name in ("mu", "sigma"))
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise wrong(path, "The statistics are not finite.", ADVICE)
    return mean, covariance
