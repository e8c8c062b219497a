import pytest
import torch

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.diffusion.denoiser import Denoiser, build_network


@pytest.fixture(scope="session")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = NetworkSettings(resolution=8, image_channels=1, channels=32, multipliers=(1, 2), blocks=2)
    return Denoiser(build_network(network), DiffusionSettings()).eval().requires_grad_(False)
