"""Networks: tensors in, tensors out."""

from __future__ import annotations

from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.layers import normalize_weights_
from edm2core.diffusion.unet import UNet
from edm2core.registry import NETWORKS, load

__all__ = ["UNet", "build_network", "normalize_weights_"]


def build_network(settings: NetworkSettings) -> UNet:
    """A freshly initialised network on torch's default device, its weights drawn from torch's global generator."""
    network: UNet = load(NETWORKS[settings.use].build)(settings)
    return network
