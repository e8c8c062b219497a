"""Drawing images: a denoiser, a solver and noise levels turn latents into pixels."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.noise_levels import karras
from edm2core.diffusion.solvers import Denoise, Noise, Solver
from edm2core.diffusion.solvers.heun import heun
from edm2core.errors import InputError


class Guidance(NamedTuple):
    """Guidance of denoised images at the noise levels of `interval`: D = guide + weight · (denoiser − guide).

    The guide is another network, which is told the classes if it knows any, or None: then it is the denoiser itself, told no classes.
    """

    weight: float
    guide: Denoiser | None = None
    interval: tuple[float, float] = (0.0, math.inf)


@torch.no_grad()
def draw(
    denoiser: Denoiser,
    latents: Tensor,
    levels: Tensor | int = 18,
    solver: Solver | None = None,
    *,
    clip: bool = True,
    state: torch.dtype = torch.float64,
    noise: Noise | None = None,
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
) -> Tensor:
    """Images in [0, 1], [N, C, H, W] of the `state`'s precision, from unit normal latents of that shape.

    `levels` are the noise levels, float64 [steps + 1], the last one 0, or how many steps EDM's own have. `solver` is a function of
    edm2core/diffusion/solvers, by default `heun`. The network's input is float32.
    `noise(i)` is step i's unit normal noise, which a stochastic solver needs. `clip` keeps every D, guided if it is, within the values
    that an image's 0 and 1 map to. `labels`, int64 [N], are the classes for a class-conditional network. An image is NaN where the
    network gave no finite number. Raises InputError where the solver asks for noise that was not given.
    """
    sigmas: list[float] = (karras(levels) if isinstance(levels, int) else levels).tolist()
    denoise = denoise_with(denoiser, labels, guidance, clip=clip, state=state)
    x = (solver or heun)(denoise, latents.to(state) * sigmas[0], sigmas, noise or _no_noise)
    images: Tensor = denoiser.pixel_scale.to_images(x).clamp(0, 1)
    return images


def denoise_with(
    denoiser: Denoiser, labels: Tensor | None = None, guidance: Guidance | None = None, *, clip: bool, state: torch.dtype
) -> Denoise:
    """D(x; σ) as solvers call it, guided or not, from the network's float32 to the `state`'s precision; otherwise as `draw` says."""
    pixel_scale = denoiser.pixel_scale

    def guided(y: Tensor, x: Tensor, sigma: float, by: Guidance) -> Tensor:
        anyone = None if labels is None else torch.full_like(labels, denoiser.network.settings.classes)
        guide = denoiser(x.float(), sigma, anyone) if by.guide is None else by.guide(x.float(), sigma, labels)
        return torch.lerp(guide.to(state), y, by.weight)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        y: Tensor = denoiser(x.float(), sigma, labels).to(state)
        if guidance is not None and guidance.interval[0] <= sigma <= guidance.interval[1]:
            y = guided(y, x, sigma, guidance)
        y = y.masked_fill(y.isinf(), math.nan)  # a clamp keeps NaN but would turn infinities black or white
        return y.clamp(pixel_scale.low, pixel_scale.high) if clip else y

    return denoise


def _no_noise(step: int) -> Tensor:
    raise InputError(
        "A stochastic solver needs noise.", do_next="Pass noise=lambda i: latents(seed, draw, indices, shape, i + 1), or set eta to 0."
    )


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] to uint8, rounded; 0 to 255."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
