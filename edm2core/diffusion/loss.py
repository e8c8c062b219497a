"""Training's noise levels and loss (EDM: arXiv 2206.00364, table 1; EDM2: arXiv 2312.02696, equations 14 and 21)."""

from collections.abc import Callable

from torch import Tensor, nn

from edm2core.config.settings import DiffusionSettings
from edm2core.diffusion.denoiser import Denoiser, noise_level_tensor
from edm2core.diffusion.weightings import Weighting
from edm2core.registry import WEIGHTINGS, load


def noise_levels(normal: Tensor, settings: DiffusionSettings) -> Tensor:
    """Training's noise levels σ, where ln σ ~ N(p_mean, p_std²), from standard normal numbers of any shape."""
    return (normal * settings.p_std + settings.p_mean).exp()


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

    def forward(
        self,
        images: Tensor,
        sigma: Tensor,
        noise: Tensor,
        labels: Tensor | None = None,
        keys: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """λ(σ)/exp(u(σ)) · (D(x + σn; σ) − x)² + u(σ), averaged over each image: [N] (EDM2, equation 21).

        `images` at the network's scale and unit-variance `noise` are [N, C, H, W]; `sigma` is [N] or [N, 1, 1, 1]; `labels`, `keys` and
        `augment` are as the denoiser's. The loss is the mean of the result over the whole batch, so micro-batches of unequal size add up to
        the same.
        """
        images, sigma = images.float(), noise_level_tensor(sigma, images)
        log_variance = self.denoiser.log_variance(sigma)
        error: Tensor = self.denoiser(images + sigma * noise, sigma, labels, keys, augment) - images
        return (self.weight(sigma) / log_variance.exp() * error**2 + log_variance).flatten(1).mean(dim=1)
