import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edm2core.config import load_recipe
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.diagnostics import (
    activation_magnitudes,
    blocks_by_level,
    diagnostic_levels,
    log_variances,
    losses,
    weight_magnitudes,
)
from edm2core.diffusion.latents import latents
from edm2core.diffusion.loss import Objective

IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def denoiser_of(recipe: str = "digits/G", **overrides: Any) -> Denoiser:
    read = load_recipe(recipe, overrides)
    torch.manual_seed(0)
    return Denoiser(build_network(read.network), read.diffusion, PixelScale()).eval()


def nothing(_: int) -> None:
    pass


def test_levels_run_down_the_encoder_and_up_the_decoder() -> None:
    levels = blocks_by_level(denoiser_of("digits/C").network)
    assert list(levels) == ["encoder 8", "encoder 4", "middle 4", "decoder 4", "decoder 8"]
    network = denoiser_of("digits/C").network
    assert sum(map(len, levels.values())) == len(network.encoder) + len(network.middle) + len(network.decoder)


@pytest.mark.parametrize("recipe", ["digits/C", "digits/G"])
def test_a_level_is_the_side_of_its_outputs(recipe: str) -> None:
    denoiser, sides = denoiser_of(recipe), dict[nn.Module, int]()
    levels = blocks_by_level(denoiser.network)
    for block in (block for blocks in levels.values() for block in blocks):
        block.register_forward_hook(lambda block, _, output: sides.update({block: output.shape[-1]}))
    with torch.no_grad():
        denoiser(IMAGES, 1.0)
    assert {name: {sides[block] for block in blocks} for name, blocks in levels.items()} == {
        name: {int(name.split()[1])} for name in levels
    }


@pytest.mark.parametrize(("recipe", "magnitude"), [("paper/digits/C", math.sqrt(2)), ("digits/C", math.sqrt(1 / 3)), ("digits/E", 1.0)])
def test_weights_start_at_the_magnitude_of_their_initialisation(recipe: str, magnitude: float) -> None:
    found = weight_magnitudes(denoiser_of(recipe).network)
    assert found
    assert list(found.values()) == pytest.approx([magnitude] * len(found), rel=0.02)


def test_weight_magnitudes_follow_the_weights() -> None:
    network = denoiser_of("digits/E").network
    before = weight_magnitudes(network)
    with torch.no_grad():
        for parameter in network.middle.parameters():
            parameter.mul_(3)
    after = weight_magnitudes(network)
    assert {level for level in before if after[level] != pytest.approx(before[level])} == {"middle 4"}
    assert after["middle 4"] == pytest.approx(3 * before["middle 4"])


def test_activations_are_the_blocks_outputs_whatever_the_batch() -> None:
    denoiser, outputs = denoiser_of("digits/C"), list[Tensor]()
    found = activation_magnitudes(denoiser, IMAGES, None, 20, nothing)
    assert activation_magnitudes(denoiser, IMAGES, None, 7, nothing) == pytest.approx(found, rel=1e-5)
    for block in denoiser.network.middle:
        block.register_forward_hook(lambda *given: outputs.append(given[2]))
    activation_magnitudes(denoiser, IMAGES, None, 20, nothing)
    assert found["middle 4"] == pytest.approx(sum(float(y.square().mean().sqrt()) for y in outputs) / 2, rel=1e-5)


def test_magnitudes_of_rung_g_start_near_one() -> None:
    found = activation_magnitudes(denoiser_of("paper/digits/G"), IMAGES, None, 20, nothing)
    assert found
    assert all(0.8 < magnitude < 1.2 for magnitude in found.values())


def test_losses_are_trainings_without_the_log_variance() -> None:
    denoiser = denoiser_of("digits/C")
    sigmas = diagnostic_levels(4)
    found = losses(denoiser, IMAGES, None, sigmas, 20, nothing)
    assert losses(denoiser, IMAGES, None, sigmas, 7, nothing) == pytest.approx(found, rel=1e-5)
    for step, (sigma, loss, u) in enumerate(zip(sigmas, found, log_variances(denoiser, sigmas) or [], strict=True), start=1):
        noise = latents(0, 0, range(20), IMAGES.shape[1:], step)
        with torch.no_grad():
            training = Objective(denoiser)(IMAGES, torch.full((20,), sigma), noise).mean()
        assert loss / math.exp(u) + u == pytest.approx(float(training), rel=1e-4)


def test_a_network_that_says_nothing_has_the_loss_of_the_skip_alone() -> None:
    """F = 0, as G's output gain starts at 0: the error is that of c_skip·(x + σn), and u(σ) has nothing to do with it."""
    denoiser, (sigma,) = denoiser_of("digits/G"), (0.5,)
    noise = latents(0, 0, range(20), IMAGES.shape[1:], 1)
    error = (0.5 * (IMAGES + sigma * noise) - IMAGES).square().mean()
    assert losses(denoiser, IMAGES, None, [sigma], 20, nothing)[0] == pytest.approx(float(error) * 8, rel=1e-5)


def test_rung_a_learns_no_log_variance() -> None:
    assert log_variances(denoiser_of("paper/digits/A"), [1.0]) is None


def test_levels_of_noise_are_even_in_their_logarithm() -> None:
    sigmas = diagnostic_levels(5)
    assert (sigmas[0], sigmas[-1]) == (0.002, pytest.approx(80.0))
    ratios = [b / a for a, b in pairwise(sigmas)]
    assert ratios == pytest.approx([ratios[0]] * 4)


def test_progress_counts_every_image() -> None:
    seen: list[int] = []
    activation_magnitudes(denoiser_of("digits/C"), IMAGES, None, 7, seen.append)
    losses(denoiser_of("digits/C"), IMAGES, None, [1.0, 2.0], 7, seen.append)
    assert sum(seen) == 60
