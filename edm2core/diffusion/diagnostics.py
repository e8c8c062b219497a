"""What happens inside a network, and how well it denoises: magnitudes by level, loss by noise level (EDM2: arXiv 2312.02696, section 2)."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from statistics import fmean

import torch
from torch import Tensor, nn

from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.latents import latents
from edm2core.diffusion.layers import Weighted
from edm2core.diffusion.loss import loss_weight, noise_levels
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.diffusion.unet import Block, UNet

LOWEST, HIGHEST = 0.002, 80.0  # the noise levels at which the sampler ends and begins
Progress = Callable[[int], None]  # takes how many images were evaluated since the last call


def blocks_by_level(network: UNet | OwnNetwork) -> dict[str, list[Block]]:
    """The residual blocks by the level of their outputs, in the order they run: encoder 32, encoder 16, …, middle 4, …, decoder 32.

    An own network has none of them.
    """
    levels = dict[str, list[Block]]()
    for block in network.blocks:
        levels.setdefault(f"{block.spec.part} {block.spec.side}", []).append(block)
    return levels


def weight_magnitudes(network: UNet | OwnNetwork) -> dict[str, float]:
    """The mean magnitude of the learned maps in the blocks of each level.

    A map's magnitude is the root mean square of its stored weight, times √fan_in if the weight is applied as stored. At magnitude 1 a map
    keeps the magnitude of independent inputs. Forced normalisation keeps weights there (EDM2, sections 2.2 and 2.3).
    """

    def magnitude(layer: Weighted) -> float:
        return float(layer.weight.detach().square().mean().sqrt()) / (1.0 if layer.normalized else layer.std)

    return {
        level: fmean(magnitude(layer) for block in blocks for layer in block.modules() if isinstance(layer, Weighted))
        for level, blocks in blocks_by_level(network).items()
    }


@torch.no_grad()
def activation_magnitudes(denoiser: Denoiser, images: Tensor, labels: Tensor | None, batch: int, progress: Progress) -> dict[str, float]:
    """The root mean square of a block's outputs over images [N, C, H, W] at the network's scale, averaged over the blocks of each level.

    Image i is noised to the (i + ½)/N quantile of training's noise levels. `labels` are int64 [N], or None if the network knows no classes.
    """
    levels, count = blocks_by_level(denoiser.network), len(images)
    squares = {block: torch.zeros((), device=images.device) for blocks in levels.values() for block in blocks}

    def record(block: nn.Module, _inputs: object, output: Tensor) -> None:
        squares[block] += output.float().square().mean() * (len(output) / count)  # type: ignore[index]

    normal = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    sigma = noise_levels(normal, denoiser.settings).to(images)
    with ExitStack() as hooks:
        for block in squares:
            hooks.enter_context(block.register_forward_hook(record))
        for begin in range(0, count, batch):
            part = slice(begin, begin + batch)
            noise = _noise(images, part, 0) * sigma[part, None, None, None]
            denoiser(images[part] + noise, sigma[part], None if labels is None else labels[part])
            progress(len(noise))
    return {level: fmean(float(squares[block].sqrt()) for block in blocks) for level, blocks in levels.items()}


def diagnostic_levels(count: int) -> list[float]:
    """`count` noise levels, evenly in ln σ between the sampler's ends."""
    return [LOWEST * (HIGHEST / LOWEST) ** (index / (count - 1)) for index in range(count)]


@torch.no_grad()
def losses(
    denoiser: Denoiser, images: Tensor, labels: Tensor | None, sigmas: Iterable[float], batch: int, progress: Progress
) -> list[float]:
    """The mean of λ(σ)·(D(x + σn; σ) − x)² for each σ, over images [N, C, H, W] at the network's scale. exp u(σ) learns to equal it.

    An image's noise n at a level is the same in every call, so that networks are compared on the same noisy images.
    """
    means, weight = list[float](), loss_weight(denoiser.settings)
    for step, sigma in enumerate(sigmas, start=1):
        total = torch.zeros((), dtype=torch.float64, device=images.device)
        for begin in range(0, len(images), batch):
            part = slice(begin, begin + batch)
            clean, noise = images[part], _noise(images, part, step)
            error: Tensor = denoiser(clean + sigma * noise, sigma, None if labels is None else labels[part]) - clean
            total += error.double().square().mean() * len(clean)
            progress(len(clean))
        means.append(float(total / len(images)) * float(weight(torch.tensor(sigma, dtype=torch.float64))))
    return means


@torch.no_grad()
def log_variances(denoiser: Denoiser, sigmas: Iterable[float]) -> list[float] | None:
    """u(σ) for each σ, or None where the network learns no log-variance."""
    if denoiser.uncertainty is None:
        return None
    return [float(denoiser.log_variance(sigma)) for sigma in sigmas]


def _noise(images: Tensor, part: slice, step: int) -> Tensor:
    """Unit normal noise of some of the images. It depends only on an image's index and the step."""
    return latents(0, 0, range(len(images))[part], images.shape[1:], step).to(images)
