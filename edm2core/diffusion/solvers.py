"""Solvers: ways from noise to an image along the noise levels. `SOLVERS` in edm2core/registry.py lists them.

A solver of your own is a function of the protocol `Solver` in a file of yours, which `sample.solver` names: docs/how-to/own-code.md.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edm2core.errors import InputError

Denoise = Callable[[Tensor, float], Tensor]
"""(x, σ) → D(x; σ), the expected clean images: both [N, C, H, W], at the network's scale, of the same precision. One network evaluation."""

Noise = Callable[[int], Tensor]
"""(step) → float32 [N, C, H, W] on the CPU, unit normal noise for that step, which is any whole number of 0 or more.

Each image's noise is its own, whatever is drawn beside it.
"""


class Solver(Protocol):
    """A solver, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, /) -> Tensor:
        """The images at σ = 0, as `x` is: [N, C, H, W] at the network's scale, in the precision of the steps.

        `x` is at sigmas[0]. The levels fall to sigmas[-1] = 0, and step i goes from sigmas[i] to sigmas[i + 1]. A solver calls `denoise`
        as often as its line in the registry says, calls `noise` only if it is stochastic, and reads no number from a tensor, since that
        waits for the device.
        """


def evaluated_levels(solver: Solver, sigmas: Sequence[float]) -> list[float]:
    """The noise levels at which a solver evaluates the network, found on one blank pixel without a network."""
    levels: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        levels.append(sigma)
        return torch.zeros_like(x)

    blank = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    solver(denoise, blank, sigmas, lambda step: blank.float())
    return levels


def checked(address: str, solver: Solver) -> Solver:
    """The user's own solver, which raises InputError where what it returns are no images like those it was given."""

    def solve(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, /) -> Tensor:
        images = solver(denoise, x, sigmas, noise)
        if not isinstance(images, Tensor) or images.shape != x.shape:
            given = f"shape {list(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise InputError(
                f"The own solver returned {given}, where images of shape {list(x.shape)} are needed.",
                where=address,
                do_next="Return the images at the last noise level, as it was given them.",
            )
        return images.to(x)

    return solve


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Of first order; one evaluation a step. It is DDIM (arXiv 2010.02502, equation 13) of images that are not scaled, as in EDM."""
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * (x - denoise(x, sigma)) / sigma
    return x


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
    """Heun's method with churn (EDM: arXiv 2206.00364, algorithm 2). Of second order; two evaluations a step, the last step one.

    `eta` times √2 - 1 is γ of the steps whose σ is in [s_min, s_max].
    """
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


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DPM-Solver++ with two steps' denoised images (arXiv 2211.01095, algorithm 2), in λ = -ln σ for images that are not scaled (α = 1).

    Of second order; one evaluation a step. The first step is Euler's, and the last returns its denoised images.
    """
    return dpmpp_2m_sde(denoise, x, sigmas, noise, eta=0.0)


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, eta: float = 1.0) -> Tensor:
    """The stochastic one. `eta` is the share of the noise of the reverse diffusion: 1 is the paper's equation 19, 0 is `dpmpp_2m`."""
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


def unipc(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, order: int = 3) -> Tensor:
    """UniPC (arXiv 2302.04867, algorithm 7, with B₂(h) = e^h - 1) in data prediction, λ = -ln σ, for images that are not scaled (α = 1).

    Of the order `order` + 1 after the first steps, whose order grows from 2; one evaluation a step.

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
