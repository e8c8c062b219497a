"""Masks as good as independent coin throws, and the same wherever and however they are made."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.dropout import dropout, dropout_keys
from edm2core.keyed_random import seed_of

CPU = torch.device("cpu")
RATE = 0.13
SHAPE = (32, 16, 16)
IMAGES = 128


def dropped(keys: Tensor, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """The masks [N, elements in the order of their numbers], standardised: of mean 0 and variance 1."""
    ones = torch.ones(len(keys), *shape).contiguous(memory_format=torch.channels_last)
    mask = dropout(ones, RATE, keys) == 0
    return (mask.permute(0, 2, 3, 1).reshape(len(keys), -1).double() - RATE) / math.sqrt(RATE * (1 - RATE))


@pytest.fixture(scope="module", params=[0, 1, 2])
def masks(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """Of a layer, of the next one, and of the same layer at the next step."""
    here, after = (dropout_keys(seed_of(request.param, step, "dropout"), IMAGES, 4, CPU) for step in (7, 8))
    return {"here": dropped(here[:, 1]), "next layer": dropped(here[:, 2]), "next step": dropped(after[:, 1])}


def deviations(products: Tensor) -> float:
    """How many standard deviations the mean of uncorrelated numbers of mean 0 and variance 1 is away from 0."""
    return float(products.mean()) * math.sqrt(products.numel())


def test_the_dropout_rate_holds_in_every_image_and_at_every_position(masks: dict[str, Tensor]) -> None:
    here = masks["here"]
    assert abs(deviations(here)) < 4.5
    for means, of in ((here.mean(1), here.shape[1]), (here.mean(0), here.shape[0])):
        spread = float(means.square().mean()) * of  # 1, give or take sqrt(2 / how many means there are)
        assert spread == pytest.approx(1, abs=4.5 * math.sqrt(2 / len(means)))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 16, 31, 32, 33, 64, 512, 1024, 4096])
def test_neighbours_are_uncorrelated(masks: dict[str, Tensor], lag: int) -> None:
    here = masks["here"]
    assert abs(deviations(here[:, lag:] * here[:, :-lag])) < 4.5
    if lag < IMAGES:
        assert abs(deviations(here[lag:] * here[:-lag])) < 4.5


def test_layers_and_steps_are_uncorrelated(masks: dict[str, Tensor]) -> None:
    for other in ("next layer", "next step"):
        assert abs(deviations(masks["here"] * masks[other])) < 4.5


def test_no_two_images_have_masks_that_are_alike(masks: dict[str, Tensor]) -> None:
    pairs = (masks["here"] @ masks["here"].T) / math.sqrt(masks["here"].shape[1])
    z = pairs[~torch.eye(IMAGES, dtype=torch.bool)]
    assert z.abs().max() < 5.5  # of 8128 pairs
    assert float(z.square().mean()) == pytest.approx(1, abs=0.07)


def test_the_spectrum_is_flat(masks: dict[str, Tensor]) -> None:
    power = (np.abs(np.fft.rfft(masks["here"].numpy(), axis=1)) ** 2 / masks["here"].shape[1])[:, 1:-1].mean(axis=0)
    assert np.abs(power - 1).max() * math.sqrt(IMAGES) < 6.5  # a mean of so many exponential variates
    assert power.var() * IMAGES == pytest.approx(1, abs=0.15)


def test_runs_of_bits_come_as_often_as_they_should(masks: dict[str, Tensor]) -> None:
    """Chi-square of all patterns of eight neighbours."""
    bits = (masks["here"] > 0).numpy().reshape(-1, 8)
    counts = np.bincount(bits @ (1 << np.arange(8)), minlength=256)
    ones = np.array([bin(pattern).count("1") for pattern in range(256)])
    expected = len(bits) * RATE**ones * (1 - RATE) ** (8 - ones)
    often = expected > 10
    chi_square = ((counts - expected) ** 2 / expected)[often].sum()
    assert chi_square == pytest.approx(often.sum(), abs=5 * math.sqrt(2 * often.sum()))


def test_the_mean_stays_what_it_was_and_its_gradient_is_that_of_what_was_kept() -> None:
    keys = dropout_keys(1, 8, 1, CPU)[:, 0]
    x = torch.randn(8, *SHAPE, requires_grad=True)
    y = dropout(x, RATE, keys)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - RATE))
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, kept / (1 - RATE))
    assert float((kept / (1 - RATE)).mean()) == pytest.approx(1, abs=0.01)


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def hashed(seed: int, image: int, layer: int, element: int) -> int:
    """The number that decides, in [0, 2^31), by Python's integers."""
    z = signed(seed + (image * 65536 + layer) * 0x9E3779B97F4A7C15, 64)
    z = signed((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9, 64)
    z = signed((z ^ (z >> 27)) * 0x94D049BB133111EB, 64)
    z ^= z >> 31
    x = signed((signed(z, 32) ^ element) * 0x7FEB352D, 32)
    x = signed((x ^ (x >> 15) ^ signed(z >> 32, 32)) * 0x846CA68B, 32)
    return x ^ (x >> 16)


def test_masks_follow_the_documented_integer_hash() -> None:
    """Another hash would be another training under the same key."""
    seed, shape = seed_of(0, 1, "dropout"), (2, 3, 3)
    mask = dropout(torch.ones(4, *shape), 0.5, dropout_keys(seed, 4, 6, CPU)[:, 5]) != 0
    for image, channel, row, column in np.ndindex(4, *shape):
        decides = hashed(seed, image, 5, (row * 3 + column) * 2 + channel)
        assert 0 <= decides < 2**31
        assert bool(mask[image, channel, row, column]) == (decides >= 2**30)
    assert [hashed(seed, 0, 0, 0), hashed(seed, 3, 5, 17)] == [568142546, 1280793595]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_layout_in_memory_and_the_precision_change_no_mask(dtype: torch.dtype) -> None:
    keys, x = dropout_keys(3, 4, 2, CPU)[:, 1], torch.ones(4, 6, 5, 5)
    plain = dropout(x, RATE, keys)
    other = dropout(x.to(dtype).contiguous(memory_format=torch.channels_last), RATE, keys)
    assert other.dtype == dtype
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain != 0, other != 0)


def test_keys_do_not_depend_on_how_many_there_are() -> None:
    assert torch.equal(dropout_keys(5, 9, 7, CPU)[:4, :3], dropout_keys(5, 4, 3, CPU))


@pytest.mark.slow
def test_a_compiler_makes_the_same_masks() -> None:
    keys, x = dropout_keys(3, 4, 2, CPU)[:, 1], torch.randn(4, 6, 5, 5)
    assert torch.equal(torch.compile(dropout, dynamic=False)(x, RATE, keys), dropout(x, RATE, keys))


@pytest.mark.needs("gpu")
def test_a_graphics_processor_makes_the_same_masks() -> None:
    keys, x = dropout_keys(3, 4, 2, CPU), torch.randn(4, 6, 5, 5)
    there = dropout_keys(3, 4, 2, pick_device())
    assert torch.equal(there.cpu(), keys)
    assert torch.equal(dropout(x.to(pick_device()), RATE, there[:, 1]).cpu() != 0, dropout(x, RATE, keys[:, 1]) != 0)
