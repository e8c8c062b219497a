"""Noise levels, keyed noise and Heun's sampler (EDM: arXiv 2206.00364, algorithm 2)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from edm2core.diffusion.denoiser import Denoiser
from edm2core.errors import InputError

PROBE_STEPS = 18  # steps of the schedule whose levels the probe's t counts
LABEL_STEP = 2**63  # no sampler has so many steps, so an image's class and noise come from different random numbers


def sigma_schedule(steps: int = 18, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels σ_0 = sigma_max … σ_{steps-1} = sigma_min, σ_steps = 0: float64 [steps + 1] (EDM, equation 5).

    Raises InputError for fewer than two steps: the first level is sigma_max and the last sigma_min.
    """
    if steps < 2:
        raise InputError(f"A schedule from sigma_max to sigma_min has at least 2 steps, not {steps}.", do_next="Raise sample.steps.")
    share = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + share * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


def probe_sigma(t: int) -> float:
    """The t-th smallest positive level of the 18-step schedule, t in 1 … 18. Raises InputError for another t."""
    if not 1 <= t <= PROBE_STEPS:
        raise InputError(f"The probe's t counts the {PROBE_STEPS} noise levels of its schedule; there is no level {t}.")
    return float(sigma_schedule(PROBE_STEPS)[PROBE_STEPS - t])


def latents(seed: int, draw: int, indices: Sequence[int], shape: Sequence[int], step: int = 0) -> Tensor:
    """Unit normal noise of the images with these indices: float32 [n, *shape] on the CPU.

    Each image's numbers depend only on (seed, draw, its index, step), not on the batch or process.
    Step 0 is the sampler's start, step i + 1 the churn of its step i.
    """
    noise = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in zip(noise, indices, strict=True):
        np.random.Generator(_philox(seed, draw, index, step)).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise)


def between(start: Tensor, end: Tensor, shares: Sequence[float]) -> Tensor:
    """Latents on the great arc from each of `start` to that of `end`, [n, *shape]: float32 [n, len(shares), *shape].

    Shares 0 and 1 are the two ends. Along a straight line the middle would have half their variance, which no network was trained on.
    """
    a, b = start.double().flatten(1), end.double().flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    angle = torch.arccos(cosine.clamp(-1, 1))[:, None, None]
    share = torch.tensor(shares, dtype=torch.float64)[None, :, None]
    arc = (torch.sin((1 - share) * angle) * a[:, None] + torch.sin(share * angle) * b[:, None]) / torch.sin(angle)
    return arc.float().reshape(*arc.shape[:2], *start.shape[1:])


def drawn_labels(seed: int, draw: int, indices: Sequence[int], classes: int) -> Tensor:
    """The classes, uniform over 0 … classes - 1, of the images with these indices: int64 [n]; keyed as their latents are."""
    return torch.tensor([np.random.Generator(_philox(seed, draw, index, LABEL_STEP)).integers(classes) for index in indices])


def _philox(seed: int, draw: int, index: int, step: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, draw], np.uint64), counter=np.array([0, 0, index, step], np.uint64))


@torch.no_grad()
def heun(
    denoiser: Denoiser,
    latents: Tensor,
    steps: int = 18,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    eta: float = 0.0,
    s_min: float = 0.01,
    s_max: float = 1.0,
    s_noise: float = 1.007,
    clip: bool = True,
    state: torch.dtype = torch.float64,
    noise: Callable[[int], Tensor] | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Images in [0, 1], [N, C, H, W] of the `state`'s precision, from unit normal latents of that shape; 2·steps - 1 network evaluations.

    The schedule is float64, the network's input float32. `eta` times √2 - 1 is γ of the steps whose σ is in [s_min, s_max];
    `noise(i)` then gives step i's unit normal churn. `clip` keeps every D within the values that an image's 0 and 1 map to.
    `labels`, int64 [N], are the classes for a class-conditional network. An image is NaN where the network gave no finite number.
    Raises InputError where eta asks for noise that was not given.
    """
    if eta > 0 and noise is None:
        raise InputError(
            "A sampler with eta above 0 needs noise.", do_next="Pass noise=lambda i: latents(seed, draw, indices, shape, i + 1)."
        )
    pixel_scale = denoiser.pixel_scale

    def denoise(x: Tensor, sigma: float) -> Tensor:
        y: Tensor = denoiser(x.float(), sigma, labels).to(state)
        y = y.masked_fill(y.isinf(), math.nan)  # a clamp keeps NaN but would turn infinities black or white
        return y.clamp(pixel_scale.low, pixel_scale.high) if clip else y

    sigmas = sigma_schedule(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho).tolist()
    x = latents.to(state) * sigmas[0]
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        if eta > 0 and noise is not None and s_min <= sigma <= s_max:
            churned = sigma * (1 + eta * (math.sqrt(2) - 1))
            x = x + math.sqrt(churned**2 - sigma**2) * s_noise * noise(i).to(x)
            sigma = churned
        slope = (x - denoise(x, sigma)) / sigma
        euler = x + (following - sigma) * slope
        if following > 0:
            slope = (slope + (euler - denoise(euler, following)) / following) / 2
        x = x + (following - sigma) * slope
    images: Tensor = pixel_scale.to_images(x).clamp(0, 1)
    return images


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] to uint8, rounded; 0 to 255."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
