"""Mean and covariance of features, the Fréchet distance between two such Gaussians, and references as the store holds them."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from edm2core.errors import InputError, IntegrityError
from edm2core.metrics.compared import Compared, Value
from edm2core.metrics.gaussian import Statistics
from edm2core.registry import EXTRACTORS

ARRAYS, FEATURES, INFO = "reference.safetensors", "features.npy", "reference.json"
ROWS_AT_ONCE = 8192
BLOCKS = 10  # of the jackknife, which leaves one out at a time


@dataclass(frozen=True)
class ReferenceInfo:
    """The origin of a reference: SHA-256 of the images' file and of the extractor's weights; of an imported one, who made it."""

    n: int
    extractor: str
    images_sha256: str
    extractor_sha256: str
    origin: str = ""  # of imported statistics, in words; empty: our own


def statistics(features: NDArray[np.float32]) -> Statistics:
    """Mean and covariance of features [n, d], summed in float64.

    Raises InputError for features that are not finite, and where n ≤ d: the covariance would be singular, and the distance mean little.
    """
    n, dimensions = features.shape
    if n <= dimensions:
        raise too_few(n, dimensions)
    mean = features.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise InputError("The images' features are not finite.", do_next="Look at the images and at the extractor's weights.")
    covariance = np.zeros((dimensions, dimensions))
    for begin in range(0, n, ROWS_AT_ONCE):
        centred = features[begin : begin + ROWS_AT_ONCE] - mean
        covariance += centred.T @ centred
    return Statistics(mean, covariance / (n - 1), n)


def too_few(n: int, dimensions: int) -> InputError:
    """The error about n images whose covariance of d features would be singular."""
    few = f"{n} images are too few for a Fréchet distance in {dimensions} features: their covariance would be singular."
    do_next = f"Use at least {dimensions + 1} images; published values use 50000."
    return InputError(few, where="sample.count, or the size of the data set", do_next=do_next)


def frechet(compared: Compared) -> dict[str, Value]:
    """FID, or the Fréchet distance in other features."""
    own, reference = statistics(compared.features), compared.reference.statistics
    left_out = frechet_left_out(compared.features, reference)
    value = Value(frechet_distance(own, reference), jackknife_error(left_out), tuple(left_out))
    return {"fid": value, "fd": value}


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), at least 0 (Heusel et al., arXiv 1706.08500, equation 6).

    The root's trace is the sum of the singular values of F_aᵀF_b, where Σ = FFᵀ. Roots of the eigenvalues of Σ_a Σ_b are the usual way;
    where a covariance is singular, their rounding error is 1e-7 of its trace.
    """
    return max(_distance(a, _factor(a.covariance), b, _factor(b.covariance)), 0.0)


def _distance(a: Statistics, factor_a: NDArray[np.float64], b: Statistics, factor_b: NDArray[np.float64]) -> float:
    offset, root = a.mean - b.mean, np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum()
    return float(offset @ offset + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def _factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """F with FFᵀ = covariance; eigenvalues that rounding cannot tell from 0 count as 0, by numpy.linalg.matrix_rank's rule."""
    values, vectors = np.linalg.eigh(covariance)
    nonzero = values > len(values) * np.finfo(np.float64).eps * values[-1]
    factor: NDArray[np.float64] = vectors[:, nonzero] * np.sqrt(values[nonzero])
    return factor


def frechet_error(features: NDArray[np.float32], reference: Statistics) -> float:
    """The standard error of the distance of features [n, d] from a fixed reference, by a delete-a-block jackknife.

    A bootstrap would not do: its repeated images shrink the covariance and push the distance up. Blocks are of neighbouring rows.
    """
    return jackknife_error(frechet_left_out(features, reference))


def jackknife_error(left_out: Sequence[float]) -> float:
    """The standard error by the values without each block (Shao & Tu 1995, "The Jackknife and Bootstrap", equation 2.3)."""
    return float(np.sqrt((len(left_out) - 1) * np.var(left_out)))


def frechet_left_out(features: NDArray[np.float32], reference: Statistics) -> list[float]:
    """The distances of features [n, d] from a reference without each of BLOCKS blocks of neighbouring rows."""
    n, mean = len(features), features.mean(axis=0, dtype=np.float64)
    blocks = []
    for rows in np.array_split(np.arange(n), BLOCKS):
        centred = features[rows] - mean
        blocks.append((len(rows), centred.sum(axis=0), centred.T @ centred))
    factor = _factor(reference.covariance)
    total = sum((own_sum for _, own_sum, _ in blocks), np.zeros_like(mean))
    squares = sum((own_squares for *_, own_squares in blocks), np.zeros_like(reference.covariance))
    distances = []
    for size, own_sum, own_squares in blocks:
        left = n - size
        shift = (total - own_sum) / left
        covariance = (squares - own_squares - left * np.outer(shift, shift)) / (left - 1)
        distances.append(_distance(Statistics(mean + shift, covariance, left), _factor(covariance), reference, factor))
    return distances


def frechet_by_class(compared: Compared) -> dict[str, Value]:
    """The mean over classes of the distance between a class's samples and its training images. Each class's is put into `compared`.

    Raises InputError where the samples' classes are not known, and where a class has too few images for its covariance.
    """
    if compared.classes is None:
        do_next = "Measure a class-conditional recipe's samples by an experiment."
        raise InputError("fd_by_class needs to know the class of each sample.", do_next=do_next)
    labels, real_labels = compared.classes()
    values: list[Value] = []
    for label in range(int(real_labels.max()) + 1):
        own, real = compared.features[labels == label], compared.real[real_labels == label]
        try:
            reference = statistics(real)
            values.append(Value(frechet_distance(statistics(own), reference), frechet_error(own, reference)))
        except InputError as error:
            few = f"Class {label} has {len(own)} samples and {len(real)} training images: {error.what}"
            raise InputError(few, where="sample.count", do_next="Raise sample.count, or leave out fd_by_class.") from None
    compared.by_class = [value.value for value in values]
    errors = [value.error or 0.0 for value in values]
    return {"fd_by_class": Value(fmean(compared.by_class), math.hypot(*errors) / len(errors))}


@dataclass(frozen=True)
class Reference:
    """What samples are compared with. `features`, float32 [n, d] of the training images, memory-mapped, are there where asked for."""

    gaussian: Statistics | None  # None: the images are too few for a covariance
    info: ReferenceInfo
    features: NDArray[np.float32] | None = None

    @property
    def statistics(self) -> Statistics:
        """Mean and covariance. Raises InputError where the images are too few for them."""
        if self.gaussian is None:
            raise too_few(self.info.n, EXTRACTORS[self.info.extractor].dimensions)
        return self.gaussian


def write_reference(folder: Path, reference: Statistics | None, info: ReferenceInfo, features: NDArray[np.float32] | None) -> None:
    """Store a reference's statistics where there are any, and the features that they are of unless they were imported."""
    if reference is not None:
        safetensors.numpy.save_file({"mean": reference.mean, "covariance": reference.covariance}, folder / ARRAYS)
    if features is not None:
        np.save(folder / FEATURES, features)
    (folder / INFO).write_text(json.dumps(asdict(info), indent=1), encoding="utf-8")


def read_reference(folder: Path, *, with_features: bool = False) -> Reference:
    """The reference that `write_reference` stored. Raises IntegrityError where a file is missing or damaged.

    Without a file of statistics the images were too few for them: a result's manifest says which files it has.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError):
        info = ReferenceInfo(**json.loads((folder / INFO).read_text(encoding="utf-8")))
        features = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False) if with_features else None
        if not (folder / ARRAYS).exists():
            return Reference(None, info, features)
        arrays = safetensors.numpy.load_file(folder / ARRAYS)
        return Reference(Statistics(arrays["mean"], arrays["covariance"], info.n), info, features)
    raise IntegrityError("These are no reference statistics.", where=str(folder), do_next="Make them again: delete their result.")
