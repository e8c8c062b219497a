"""Drawing images: a denoiser, a solver and noise levels turn latents into pixels."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.noise_levels import karras
from edm2core.diffusion.solvers import Denoise, Noise, Solver, heun
from edm2core.errors import InputError

MOST_AT_ONCE = 64  # images whose evaluations for a class and for any class are one batch, which is faster for few: see performance.md


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
    edm2core/diffusion/solvers.py, by default `heun`. The network's input is float32.
    `noise(i)` is step i's unit normal noise, which a stochastic solver needs. `clip` keeps every D, guided if it is, within the values
    that an image's 0 and 1 map to. `labels`, int64 [N], are the classes for a class-conditional network. An image is NaN where the
    network gave no finite number. Raises InputError where the solver asks for noise that was not given, or guidance for classes.
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
    if guidance is not None and guidance.guide is None and labels is None:
        raise InputError("Guidance without a guide needs a class-conditional network.", do_next="Name a guide: sample.guidance.guide.")

    def denoise(x: Tensor, sigma: float) -> Tensor:
        if guidance is not None and guidance.interval[0] <= sigma <= guidance.interval[1]:
            y, guide = _both(denoiser, guidance.guide, x.float(), sigma, labels)
            y = torch.lerp(guide.to(state), y.to(state), guidance.weight)
        else:
            y = denoiser(x.float(), sigma, labels).to(state)
        y = y.masked_fill(y.isinf(), math.nan)  # a clamp keeps NaN but would turn infinities black or white
        return y.clamp(pixel_scale.low, pixel_scale.high) if clip else y

    return denoise


def _both(denoiser: Denoiser, guide: Denoiser | None, x: Tensor, sigma: float, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """The denoised images, and the guide's: another denoiser's, or without a guide the same one's for any class."""
    if guide is not None:
        return denoiser(x, sigma, labels), guide(x, sigma, labels)
    assert labels is not None  # noqa: S101
    anyone = torch.full_like(labels, denoiser.network.settings.classes)
    if len(x) > MOST_AT_ONCE or denoiser.network.fast is not None:  # what is compiled is for batches of one size
        return denoiser(x, sigma, labels), denoiser(x, sigma, anyone)
    y, of_any = denoiser(torch.cat([x, x]), sigma, torch.cat([labels, anyone])).chunk(2)
    return y, of_any


def _no_noise(step: int) -> Tensor:
    raise InputError(
        "A stochastic solver needs noise.", do_next="Pass noise=lambda i: latents(seed, draw, indices, shape, i + 1), or set eta to 0."
    )


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] to uint8, rounded; 0 to 255."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
