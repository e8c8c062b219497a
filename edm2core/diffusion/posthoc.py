"""Mixes power-function averages of any width from stored ones (EDM2: arXiv 2312.02696, section 3 and appendix C). It needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError

Array = NDArray[np.float64]
# The most error of a profile, and of rounding as a share of the way from the average to the weights, unless the user insists.
MOST_ERROR = 0.05
HALF, THREE_BYTES = 16, 24  # bits in which averages are stored
# The root mean square of rounding, as a share of that of the numbers. For normally distributed numbers it is .85 of this.
ROUNDING = {HALF: 2.0**-12, THREE_BYTES: 2.0**-20}


@cache
def gamma(sigma_rel: float) -> float:
    """γ of a relative width: the largest real root of γ³ + 7γ² + (16 - σ⁻²)γ + 12 - σ⁻² (equation 126, algorithm 2).

    Raises InputError for a width outside (0, 1/√12), where γ would not be positive.
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise InputError(f"There is no average of relative width {sigma_rel}.", do_next="Choose sigma_rel between 0 and 0.288.")
    t = sigma_rel**-2
    roots = np.roots([1, 7, 16 - t, 12 - t])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


def power_beta(sigma_rel: float, t: float, delta: float) -> float:
    """β = (1 - Δ/t)^(γ+1) of the step that ends at t and took Δ, in the same unit (equation 127); 0 at the first step."""
    return float((1 - delta / t) ** (gamma(sigma_rel) + 1))


@dataclass(frozen=True)
class Mix:
    """A mix of stored averages that makes another average."""

    coefficients: Array  # [stored], their sum 1
    error: float  # RMS difference between the profile they make and the wanted one, as a share of the wanted one's RMS


def rounding(coefficients: Sequence[float], bits: Sequence[int]) -> float:
    """The error that the rounding of stored averages leaves in a mix, √Σ(cᵢρᵢ)²: its root mean square, as a share of that of the weights.

    Half precision rounds a number by up to 2^-11 of the power of two below it, and the error is spread evenly over that range. Its root
    mean square is 2^-12 of numbers whose significands have a root mean square of 1.15, and a smaller share of larger ones. Averages of
    different epochs or widths differ by more than a step of half precision, so their errors are independent.
    """
    return float(np.sqrt(sum((share * ROUNDING[each]) ** 2 for share, each in zip(coefficients, bits, strict=True))))


def way(apart: float, first: float, second: float, sigma_rel: float) -> float:
    """Estimates how far an average of relative width sigma_rel is from the weights, from two averages that are at a distance `apart`.

    `first` and `second` are the relative widths of those two. The estimate is the distance that the weights cover in the average's mean
    age, 1/(γ + 2) of the training, if they move evenly. Weights that wander are further away, so this overstates rounding's share.
    """
    age, first_age, second_age = (1 / (gamma(width) + 2) for width in (sigma_rel, first, second))
    return apart * age / abs(first_age - second_age)


def lengths(average: Path, other: Path) -> tuple[float, float]:
    """The norm of an average as a vector of weights, and its distance from another of the same network. Both are safetensors files."""
    from safetensors.numpy import load_file  # here, since the control image, which imports this module to plan, has no such package

    a, b = load_file(average), load_file(other)
    squares = np.array([[np.square(x, dtype=np.float64).sum() for x in (a[name], a[name] - b[name])] for name in a])
    length, apart = np.sqrt(squares.sum(axis=0)).tolist()
    return length, apart


def mix(times: Sequence[float], sigma_rels: Sequence[float], time: float, sigma_rel: float) -> Mix:
    """The mix of stored averages of these times (in one unit) and relative widths that comes nearest to the wanted one (algorithm 3)."""
    t, g = (np.array(each, np.float64)[:, None] for each in (times, [gamma(s) for s in sigma_rels]))
    out_t, out_g = np.array([[float(time)]]), np.array([[gamma(sigma_rel)]])
    among, with_wanted = _inner_products(t, g, t.T, g.T), _inner_products(t, g, out_t, out_g)
    solved = np.linalg.solve(among, with_wanted)
    coefficients: Array = (solved / solved.sum(axis=0))[:, 0]
    wanted, made = float(_inner_products(out_t, out_g, out_t, out_g)[0, 0]), float(coefficients @ among @ coefficients)
    common = float(coefficients @ with_wanted[:, 0])
    return Mix(coefficients, float(np.sqrt(max(made - 2 * common + wanted, 0.0) / wanted)))


def mix_at(epochs: Sequence[int], sigma_rels: Sequence[float], epoch: int, sigma_rel: float) -> Mix:
    """The mix for an average at `epoch`, of those stored at it and at earlier `epochs`. It goes by epoch, and within an epoch by width."""
    at = [*(e for e in epochs if e < epoch), epoch]
    return mix([e for e in at for _ in sigma_rels], [*sigma_rels] * len(at), epoch, sigma_rel)


def _inner_products(ta: Array, ga: Array, tb: Array, gb: Array) -> Array:
    """∫ p_a p_b of two power-function profiles, for each pair (equation 151)."""
    overlap = np.minimum(ta / tb, tb / ta) ** np.where(ta < tb, gb, ga)
    products: Array = (ga + 1) * (gb + 1) * overlap / ((ga + gb + 1) * np.maximum(ta, tb))
    return products
