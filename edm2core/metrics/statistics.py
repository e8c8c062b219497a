"""Mean and covariance of features, and the Fréchet distance between two such Gaussians."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from edm2core.errors import InputError, IntegrityError

ARRAYS, INFO = "reference.safetensors", "reference.json"
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Statistics:
    """float64 mean [d] and covariance [d, d] (divisor n - 1) of n images' features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int


@dataclass(frozen=True)
class ReferenceInfo:
    """What a reference was made of: SHA-256 of the images' file and of the extractor's weights."""

    n: int
    extractor: str
    images_sha256: str
    extractor_sha256: str


def statistics(features: NDArray[np.float32]) -> Statistics:
    """Mean and covariance of features [n, d], summed in float64.

    Raises InputError for features that are not finite, and where n ≤ d, for then the covariance is singular and the distance means little.
    """
    n, dimensions = features.shape
    if n <= dimensions:
        raise InputError(
            f"{n} images are too few for a Fréchet distance in {dimensions} features: their covariance would be singular.",
            where="sample.count, or the size of the data set",
            do_next=f"Use at least {dimensions + 1} images; published values use 50000.",
        )
    mean = features.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise InputError("The images' features are not finite.", do_next="Look at the images and at the extractor's weights.")
    covariance = np.zeros((dimensions, dimensions))
    for begin in range(0, n, ROWS_AT_ONCE):
        centred = features[begin : begin + ROWS_AT_ONCE] - mean
        covariance += centred.T @ centred
    return Statistics(mean, covariance / (n - 1), n)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) by torch-fidelity (Heusel et al., arXiv 1706.08500, equation 6).

    Its own statistics have a float32 mean, which alone moves FID by 2e-5; its check of types lets float64 pass if both sides have it.
    """
    pair = [{"mu": s.mean.astype(np.float64), "sigma": s.covariance.astype(np.float64)} for s in (a, b)]
    return float(fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID])


def write_reference(folder: Path, reference: Statistics, info: ReferenceInfo) -> None:
    """Store statistics to compare with."""
    safetensors.numpy.save_file({"mean": reference.mean, "covariance": reference.covariance}, folder / ARRAYS)
    (folder / INFO).write_text(json.dumps(asdict(info), indent=1))


def read_reference(folder: Path) -> tuple[Statistics, ReferenceInfo]:
    """What `write_reference` stored; raises IntegrityError where it is not there whole."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError):
        info = ReferenceInfo(**json.loads((folder / INFO).read_text()))
        arrays = safetensors.numpy.load_file(folder / ARRAYS)
        return Statistics(arrays["mean"], arrays["covariance"], info.n), info
    raise IntegrityError("These are no reference statistics.", where=str(folder), do_next="Make them again: delete their result.")
