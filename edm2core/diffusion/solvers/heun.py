"""Heun's method with churn (EDM: arXiv 2206.00364, algorithm 2)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from edm2core.diffusion.solvers import Denoise, Noise


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: float = 0.0,
    s_min: float = 0.01,
    s_max: float = 1.0,
    s_noise: float = 1.007,
) -> Tensor:
    """Of second order; two evaluations a step, the last step one. `eta` times √2 - 1 is γ of the steps whose σ is in [s_min, s_max]."""
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        if eta > 0 and s_min <= sigma <= s_max:
            churned = sigma * (1 + eta * (math.sqrt(2) - 1))
            x = x + math.sqrt(churned**2 - sigma**2) * s_noise * noise(i).to(x)
            sigma = churned
        slope = (x - denoise(x, sigma)) / sigma
        euler = x + (following - sigma) * slope
        if following > 0:
            slope = (slope + (euler - denoise(euler, following)) / following) / 2
        x = x + (following - sigma) * slope
    return x
