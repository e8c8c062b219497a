"""The denoiser: preconditioning around a network, and the learned log-variance (EDM: arXiv 2206.00364, table 1; EDM2: arXiv 2312.02696,
equations 14 to 16 and 21)."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from edm2core.config.settings import DiffusionSettings, NetworkSettings, OwnNetworkSettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.layers import Fourier, Learned, Linear
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.diffusion.unet import UNet, learned
from edm2core.registry import NETWORKS, load


def build_network(settings: NetworkSettings | OwnNetworkSettings) -> UNet | OwnNetwork:
    """A freshly initialised network on torch's default device, its weights drawn from torch's global generator."""
    if isinstance(settings, OwnNetworkSettings):
        return OwnNetwork(settings)
    network: UNet = load(NETWORKS[settings.use])(settings)
    return network


class Denoiser(nn.Module):
    """D(x; σ) = c_skip x + c_out F(c_in x; c_noise), preconditioned in float32 around a network that autocast may run in half precision."""

    def __init__(self, network: UNet | OwnNetwork, settings: DiffusionSettings, pixel_scale: PixelScale | None = None) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self.pixel_scale = pixel_scale or PixelScale()
        maps = Learned() if isinstance(network, OwnNetwork) else replace(learned(network.settings), biases=False)
        features = settings.log_variance_features
        # u(σ), the learned log-variance of the loss: c_noise [N] → [N, 1], float32. Only training needs it.
        parts = {"fourier": Fourier(features, network.ops.fourier), "linear": Linear(features, 1, maps)} if features else {}
        self.uncertainty = nn.Sequential(OrderedDict(parts)) if parts else None

    def forward(
        self,
        noised: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        keys: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """The expected clean images: [N, C, H, W] at the network's scale, float32; `sigma` a scalar, [N] or [N, 1, 1, 1].

        `labels`, int64 [N], are the classes for a class-conditional network; None means any class. `keys` are dropout's, in training.
        `augment`, [N, augmentation labels], is how the images were augmented; None means that they were not.
        """
        noised, sigma = noised.float(), noise_level_tensor(sigma, noised)
        sigma_data, total = self.settings.sigma_data, sigma**2 + self.settings.sigma_data**2
        c_skip, c_out = sigma_data**2 / total, sigma * sigma_data / total.sqrt()
        output: Tensor = self.network(*self._network_inputs(noised, sigma), labels, keys, augment)
        return c_skip * noised + c_out * output.float()

    def log_variance(self, sigma: Tensor | float) -> Tensor:
        """u(σ), or 0 where the network learns no log-variance: [N, 1, 1, 1], N = 1 for a scalar."""
        sigma = noise_level_tensor(sigma, next(self.parameters()))
        if self.uncertainty is None:
            return torch.zeros_like(sigma)
        log_variance: Tensor = self.uncertainty(_c_noise(sigma))
        return log_variance[:, :, None, None]

    def features(self, noised: Tensor, sigma: Tensor | float, blocks: Collection[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named blocks (None: all), averaged over pixels or tokens: {name: [N, channels]}, float32, in the order they run.

        Of a U-Net nothing after the last named block is computed. Raises InputError for a name that is not in the network's `block_names`.
        """
        noised, sigma = noised.float(), noise_level_tensor(sigma, noised)
        return self.network.features(*self._network_inputs(noised, sigma), blocks)

    def _network_inputs(self, noised: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        c_in = (sigma**2 + self.settings.sigma_data**2).rsqrt()
        return c_in * noised, _c_noise(sigma).expand(len(noised))


def noise_level_tensor(sigma: Tensor | float, like: Tensor) -> Tensor:
    """σ as float32 [N, 1, 1, 1], N = 1 for a scalar, on the device of `like`."""
    if isinstance(sigma, Tensor):
        return sigma.to(like.device, torch.float32).reshape(-1, 1, 1, 1)
    return torch.full((1, 1, 1, 1), sigma, dtype=torch.float32, device=like.device)


def _c_noise(sigma: Tensor) -> Tensor:
    return sigma.flatten().log() / 4
