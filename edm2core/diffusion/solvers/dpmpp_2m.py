"""DPM-Solver++ with two steps' denoised images (arXiv 2211.01095, algorithm 2), and its stochastic variant (equation 19 there).

Written for images that are not scaled (α = 1) in λ = -ln σ, as in k-diffusion.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from edm2core.diffusion.solvers import Denoise, Noise


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Of second order; one evaluation a step. The first step is Euler's, and the last returns its denoised images."""
    return dpmpp_2m_sde(denoise, x, sigmas, noise, eta=0.0)


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, eta: float = 1.0) -> Tensor:
    """One evaluation a step. `eta` is the share of the noise of the reverse diffusion: 1 is the paper's equation, 0 is `dpmpp_2m`."""
    before: tuple[Tensor, float] | None = None  # the last step's denoised images and length in λ
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        target = denoised = denoise(x, sigma)
        if following == 0:
            return denoised
        h = math.log(sigma / following)
        if before is not None:
            target = denoised + (denoised - before[0]) * (h / (2 * before[1]))
        x = following / sigma * math.exp(-eta * h) * x - math.expm1(-(1 + eta) * h) * target
        if eta > 0:
            x = x + following * math.sqrt(-math.expm1(-2 * eta * h)) * noise(i).to(x)
        before = denoised, h
    return x
