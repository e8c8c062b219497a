"""Weights made once a step, and folded weights, against those that every forward makes for itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.diffusion.applied import Applied, fold_
from edm2core.diffusion.denoiser import Denoiser, training_loss
from edm2core.diffusion.networks import build_network

KINDS = {
    "plain": {},
    "normalized": {"weights": "normalized"},
    "forced": {"weights": "forced"},
    "preserving": {"weights": "forced", "norm": "pixel", "magnitude_preserving": True},
    "plain with gains": {"norm": "pixel", "magnitude_preserving": True},
}


@pytest.fixture(params=KINDS)
def denoiser(request: pytest.FixtureRequest) -> Denoiser:
    torch.manual_seed(0)
    settings = NetworkSettings.model_validate(
        {"resolution": 8, "channels": 32, "multipliers": (1, 2), "blocks": 2, "attention_resolutions": (4,), **KINDS[request.param]}
    )
    denoiser = Denoiser(build_network(settings), DiffusionSettings()).to(memory_format=torch.channels_last)  # type: ignore
    for parameter in denoiser.parameters():
        nn.init.ones_(parameter) if parameter.ndim == 0 else parameter.data.mul_(1.5)  # gains start at 0
    return denoiser


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 8, 8, generator=generator), torch.tensor([0.01, 0.5, 20.0]), torch.randn(3, 3, 8, 8, generator=generator)


def test_gradients_come_back_to_the_stored_weights(denoiser: Denoiser) -> None:
    reference = copy.deepcopy(denoiser)
    reference.normalize_weights_()
    loss = training_loss(reference, *inputs())
    loss.backward()
    applied = Applied(denoiser)
    applied.refresh()
    same = training_loss(applied.module, *inputs())
    same.backward()
    applied.pull_back()
    assert same.item() == pytest.approx(loss.item(), rel=1e-6)
    for (name, ours), theirs in zip(denoiser.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-6, atol=1e-7)
        assert ours.grad is not None
        assert theirs.grad is not None
        assert (ours.grad - theirs.grad).abs().max() <= 1e-5 * theirs.grad.abs().max(), name


def test_what_needs_no_folding_is_shared(denoiser: Denoiser) -> None:
    applied = Applied(denoiser)
    folded = {id(p) for p in applied.module.parameters()} - {id(p) for p in denoiser.parameters()}
    expected = 0 if denoiser.network.settings.weights == "plain" and not denoiser.network.settings.magnitude_preserving else 1
    assert (len(folded) > 0) == bool(expected)
    assert {id(b) for b in applied.module.buffers()} == {id(b) for b in denoiser.buffers()}


def test_a_folded_network_gives_the_same_images(denoiser: Denoiser) -> None:
    x, sigma, _ = inputs()
    with torch.no_grad():
        expected = denoiser(x, sigma)
        fold_(denoiser)
        torch.testing.assert_close(denoiser(x, sigma), expected, rtol=1e-5, atol=1e-5)
        folded = [parameter.clone() for parameter in denoiser.parameters()]
        fold_(denoiser)
    assert all(torch.equal(a, b) for a, b in zip(folded, denoiser.parameters(), strict=True))
