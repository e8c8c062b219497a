"""Statistics that others published: .npz files with `mu` and `sigma`, as NVlabs and pytorch-fid write them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError
from edm2core.metrics.gaussian import Statistics

ADVICE = "Give an .npz with mu [d] and sigma [d, d], as NVlabs/edm's fid-refs and pytorch-fid's --save-stats are."


def read_npz(path: Path, n: int, dimensions: int) -> Statistics:
    """The mean and covariance of `n` images' features in a file, of which nothing is executed.

    Raises InputError as `arrays_of` does, and where sigma is no covariance.
    """
    mean, covariance = arrays_of(path, dimensions)
    scale = float(np.abs(covariance).max())
    lowest = float(np.linalg.eigvalsh(covariance)[0]) if np.allclose(covariance, covariance.T, atol=1e-6 * scale) else -np.inf
    if lowest < -1e-4 * scale or scale == 0:
        raise InputError("sigma is no covariance: it is not symmetric and positive.", where=str(path), do_next=ADVICE)
    return Statistics(mean, covariance, n)


def arrays_of(path: Path, dimensions: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """mu and sigma, quickly: raises InputError where they are not there, not finite, or not of so many dimensions."""
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = np.asarray(file["mu"], np.float64), np.asarray(file["sigma"], np.float64)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"These are no statistics: {error}", where=str(path), do_next=ADVICE) from error
    if mean.shape != (dimensions,) or covariance.shape != (dimensions, dimensions):
        raise InputError(
            f"The statistics have shapes {list(mean.shape)} and {list(covariance.shape)}; these features have {dimensions} dimensions.",
            where=str(path),
            do_next="Correct reference.extractor, or give statistics in its features.",
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise InputError("The statistics are not finite.", where=str(path), do_next=ADVICE)
    return mean, covariance
