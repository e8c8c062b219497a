"""Statistics that others published: .npz files with `mu` and `sigma`, as NVlabs and pytorch-fid write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.data.headers import array_headers, load_array
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
    """mu and sigma, before the slow check of sigma. Raises InputError where they are missing, not finite or of other dimensions."""
    held = array_headers(path, ADVICE)
    if missing := [name for name in ("mu", "sigma") if name not in held]:
        raise InputError(f"These are no statistics: there is no {' and no '.join(missing)}.", where=str(path), do_next=ADVICE)
    shapes = [held[name].shape for name in ("mu", "sigma")]
    if shapes != [(dimensions,), (dimensions, dimensions)]:
        raise InputError(
            f"The statistics have shapes {list(shapes[0])} and {list(shapes[1])}; these features have {dimensions} dimensions.",
            where=str(path),
            do_next="Correct reference.extractor, or give statistics in its features.",
        )
    if any(held[name].dtype.kind not in "fiu" for name in ("mu", "sigma")):
        raise InputError("These are no statistics: mu and sigma are no real numbers.", where=str(path), do_next=ADVICE)
    mean, covariance = (load_array(path, name, ADVICE).astype(np.float64, copy=False) for name in ("mu", "sigma"))
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise InputError("The statistics are not finite.", where=str(path), do_next=ADVICE)
    return mean, covariance
