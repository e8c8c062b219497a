"""Euler's method, which is DDIM (arXiv 2010.02502, equation 13) where noise is added to images without scaling them, as EDM does."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from edm2core.diffusion.solvers import Denoise, Noise


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Of first order; one evaluation a step."""
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * (x - denoise(x, sigma)) / sigma
    return x
