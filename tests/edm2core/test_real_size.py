"""The published networks at their real size, with as few images as there can be."""

from __future__ import annotations

import pytest
import torch

from edm2core.config import load_recipe
from edm2core.diffusion import Denoiser, training_loss
from edm2core.nets import build_network
from edm2core.sample import heun, latents, probe_sigma, to_uint8


@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_cifar_takes_a_training_step_samples_and_is_probed(config: str) -> None:
    recipe = load_recipe(f"cifar10/{config}")
    torch.manual_seed(0)
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion).train()
    adam = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in denoiser.named_parameters()}
    denoiser.normalize_weights_()
    loss = training_loss(denoiser, torch.zeros(1, 3, 32, 32), torch.tensor([0.5]), torch.randn(1, 3, 32, 32))
    loss.backward()
    adam.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in denoiser.named_parameters())

    denoiser.eval()
    images = to_uint8(heun(denoiser, latents(0, 0, range(1), (3, 32, 32)), steps=2))
    assert images.shape == (1, 3, 32, 32)
    with torch.no_grad():
        features = denoiser.features(torch.zeros(1, 3, 32, 32), probe_sigma(recipe.probe.t[0]), recipe.probe.blocks)
    assert {name: tuple(value.shape) for name, value in features.items()} == {"out_6": (1, 256)}
    assert torch.isfinite(features["out_6"]).all()
