"""UniPC (arXiv 2302.04867, algorithm 7, with B₂(h) = e^h - 1) in data prediction, for images that are not scaled (α = 1), λ = -ln σ."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from edm2core.diffusion.solvers import Denoise, Noise


def unipc(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, order: int = 3) -> Tensor:
    """Of the order `order` + 1 after the first steps, whose order grows from 2; one evaluation a step.

    Each step is predicted from the denoised images of up to `order` levels, and corrected once those of its end are there.
    The last two steps are of lower order, and the last returns its denoised images.
    """
    steps, start, used = len(sigmas) - 1, x, 1
    seen: list[tuple[Tensor, float]] = []  # the denoised images and levels behind, the newest first
    for i in range(steps):
        denoised = denoise(x, sigmas[i])
        if seen:
            x = _step(start, [*seen[:used], (denoised, sigmas[i])], sigmas[i])
        if sigmas[i + 1] == 0:
            return denoised
        seen = [(denoised, sigmas[i]), *seen[: order - 1]]
        start, used = x, min(order, steps - i, len(seen))
        x = _step(start, seen[:used], sigmas[i + 1])
    return x


def _step(x: Tensor, known: list[tuple[Tensor, float]], to: float) -> Tensor:
    """One step from the level of the first of `known` to the level `to`. It is a correction if the last of `known` is at `to`."""
    (newest, sigma), *others = known
    h = math.log(sigma / to)
    ratios = [math.log(sigma / level) / h for _, level in others]
    target = newest
    for (denoised, _), ratio, weight in zip(others, ratios, _weights(ratios, h), strict=True):
        target = target + (denoised - newest) * (weight / ratio)
    return to / sigma * x - math.expm1(-h) * target


def _weights(ratios: list[float], h: float) -> list[float]:
    """The weights of the divided differences at these ratios, which make the step exact for polynomials in λ (equation 9)."""
    if len(ratios) == 1:
        return [0.5]  # as the authors' code has it; the exact value only differs in terms of higher order
    moments, phi, factorial = [], math.expm1(-h) / -h - 1, 1
    for power in range(1, len(ratios) + 1):
        moments.append(phi * factorial / math.expm1(-h))
        factorial *= power + 1
        phi = phi / -h - 1 / factorial
    weights: list[float] = np.linalg.solve(np.vander(ratios, increasing=True).T, moments).tolist()
    return weights
