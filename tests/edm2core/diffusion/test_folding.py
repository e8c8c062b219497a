"""Folded networks against those that normalise weights and scale signals in every forward."""

import copy

import pytest
import torch
from torch import Tensor, nn

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.folding import FoldedForTraining, fold_
from edm2core.diffusion.layers import normalize_weights_
from edm2core.diffusion.loss import Objective

KINDS = {
    "plain": {},
    "normalized": {"weights": "normalized"},
    "forced": {"weights": "forced"},
    "preserving": {"weights": "forced", "norm": "pixel", "magnitude_preserving": True},
    "with classes": {"weights": "forced", "norm": "group", "magnitude_preserving": True, "classes": 10},
    "with biases": {"norm": "pixel", "magnitude_preserving": True, "biases": True},
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
    normalize_weights_(reference)
    labels = torch.tensor([1, 5, 7]) if denoiser.network.settings.classes else None
    loss = Objective(reference)(*inputs(), labels).mean()
    loss.backward()
    folded = FoldedForTraining(denoiser)
    folded.refresh()
    same = Objective(folded.module)(*inputs(), labels).mean()
    same.backward()
    folded.pull_back()
    assert same.item() == pytest.approx(loss.item(), rel=1e-6)
    for (name, ours), theirs in zip(denoiser.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-6, atol=1e-7)
        assert ours.grad is not None
        assert theirs.grad is not None
        tolerance = 1e-5 if ours.ndim else 1e-3  # a gain's gradient is one sum over all pixels, whose terms cancel
        assert (ours.grad - theirs.grad).abs().max() <= tolerance * theirs.grad.abs().max(), name


def test_what_needs_no_folding_is_shared(denoiser: Denoiser) -> None:
    folded, settings = FoldedForTraining(denoiser), denoiser.network.settings
    copied = {id(p) for p in folded.module.parameters()} - {id(p) for p in denoiser.parameters()}
    assert bool(copied) == (settings.weights != "plain" or (settings.magnitude_preserving and not settings.biases))
    assert {id(b) for b in folded.module.buffers()} == {id(b) for b in denoiser.buffers()}


def test_a_folded_network_gives_the_same_images(denoiser: Denoiser) -> None:
    x, sigma, _ = inputs()
    classes = [None, torch.tensor([1, 5, 7])] if denoiser.network.settings.classes else [None]
    with torch.no_grad():
        expected = [denoiser(x, sigma, labels) for labels in classes]
        fold_(denoiser)
        for labels, images in zip(classes, expected, strict=True):
            torch.testing.assert_close(denoiser(x, sigma, labels), images, rtol=1e-5, atol=1e-5)
        folded = [parameter.clone() for parameter in denoiser.parameters()]
        fold_(denoiser)
    assert all(torch.equal(a, b) for a, b in zip(folded, denoiser.parameters(), strict=True))
