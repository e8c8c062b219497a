"""Training's noise levels and loss (EDM: arXiv 2206.00364, table 1; EDM2: arXiv 2312.02696, equations 14 and 21).

`WEIGHTINGS` in edm2core/registry.py lists the weightings of the loss by noise level. A weighting of your own is a function of the protocol
`Weighting` in a file of yours, which `diffusion.weighting` names; see docs/how-to/own-code.md. The learned weighting exp(-u(σ)) of
`diffusion.log_variance_features` multiplies any of them. It evens the loss out over noise levels, whatever λ is, so that a λ of your own
decides only where log_variance_features is 0.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from edm2core.config.settings import DiffusionSettings
from edm2core.diffusion.denoiser import Denoiser, noise_level_tensor
from edm2core.registry import WEIGHTINGS, load


def noise_levels(normal: Tensor, settings: DiffusionSettings) -> Tensor:
    """Training's noise levels σ, where ln σ ~ N(p_mean, p_std²), from standard normal numbers of any shape."""
    return (normal * settings.p_std + settings.p_mean).exp()


class Weighting(Protocol):
    """A weighting, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, sigma: Tensor, sigma_data: float, /) -> Tensor:
        """λ(σ) of the squared error of the denoised images D(x; σ), for noise levels of any shape: positive, of that shape and precision.

        `sigma_data` is the standard deviation of the images that preconditioning assumes. Nothing in it may wait for the device.
        """


def edm(sigma: Tensor, sigma_data: float) -> Tensor:
    """λ(σ) = (σ² + σ_data²)/(σ·σ_data)²: the loss of an untrained network is 1 at every level (EDM: arXiv 2206.00364, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def min_snr(sigma: Tensor, sigma_data: float, *, snr_limit: float = 5.0) -> Tensor:
    """λ(σ) = min(1/σ², γ), where γ is `snr_limit`. EDM's λ(σ) is 1/σ² + 1/σ_data².

    It is Min-SNR-γ for predicted clean images (Hang et al. 2023: arXiv 2303.09556, section 3.4). There the signal-to-noise ratio is α²/σ²
    of images scaled by α. EDM adds noise without scaling, so that α = 1.
    """
    return sigma.pow(-2).clamp(max=snr_limit)


def loss_weight(settings: DiffusionSettings) -> Callable[[Tensor], Tensor]:
    """λ(σ) of the settings' weighting, without the learned exp(-u(σ)): a function of σ, whose shape and precision it keeps."""
    weighting: Weighting = load(WEIGHTINGS[settings.weighting].code)
    options = settings.options_of("weighting")
    return lambda sigma: weighting(sigma, settings.sigma_data, **options)


class Objective(nn.Module):
    """The loss of each image, as a module for DDP to wrap: one forward uses every parameter."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.weight = denoiser, loss_weight(denoiser.settings)

    def forward(self, images: Tensor, sigma: Tensor, noise: Tensor, *told: Tensor | None) -> Tensor:
        """λ(σ)/exp(u(σ)) · (D(x + σn; σ) − x)² + u(σ), averaged over each image: [N] (EDM2, equation 21).

        `images` at the network's scale and unit-variance `noise` are [N, C, H, W]; `sigma` is [N] or [N, 1, 1, 1]; `told` are labels,
        keys and augment, as the denoiser's. The loss is the mean of the result over the whole batch, so micro-batches of unequal size add
        up to the same.
        """
        images, sigma = images.float(), noise_level_tensor(sigma, images)
        log_variance = self.denoiser.log_variance(sigma)
        error: Tensor = self.denoiser(images + sigma * noise, sigma, *told) - images
        return (self.weight(sigma) / log_variance.exp() * error**2 + log_variance).flatten(1).mean(dim=1)
