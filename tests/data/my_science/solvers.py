"""Ancestral sampling, as k-diffusion has it."""

import math
from itertools import pairwise


def euler_ancestral(denoise, x, sigmas, noise, *, eta: float = 1.0):
    """Euler's method down to a lower level, then fresh noise up to the next one; `eta` is the share of that noise."""
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        up = eta * math.sqrt(following**2 * (sigma**2 - following**2) / sigma**2)
        down = math.sqrt(following**2 - up**2)
        x = x + (down - sigma) * (x - denoise(x, sigma)) / sigma
        if up > 0:
            x = x + up * noise(i).to(x)
    return x
