import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.config.fields import GroupNormKind
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.layers import (
    Conv,
    Fourier,
    GroupNorm,
    Learned,
    Linear,
    averaged,
    down,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
    normalize_weights_,
    pixel_norm,
    standardized,
    up,
)

seeds = st.integers(0, 2**31)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(seed=seeds, scale=st.floats(0.5, 50.0))
def test_normalising_a_second_time_changes_nothing(seed: int, scale: float) -> None:
    once = normalize(normal(seed, 8, 5, 3, 3) * scale)
    torch.testing.assert_close(normalize(once), once, rtol=2e-4, atol=0)  # 1e-4 / rms from the formula's constant, at most


@settings(deadline=None, max_examples=25)
@given(seed=seeds, scale=st.floats(0.5, 50.0))
def test_a_forced_layer_does_not_see_the_length_of_its_weight(seed: int, scale: float) -> None:
    layer, x = Conv(4, 6, 3, Learned("forced")), normal(seed, 2, 4, 5, 5)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(scale)
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


def test_normalising_in_place_replaces_forced_weights_only() -> None:
    forced, plain = Linear(64, 8, Learned("forced")), Linear(64, 8, Learned())
    with torch.no_grad():
        forced.weight.mul_(7)
    expected, untouched, stored = normalize(forced.weight), plain.weight.clone(), forced.weight.data_ptr()
    normalize_weights_(torch.nn.ModuleList([forced, plain]))
    assert torch.equal(forced.weight, expected)
    assert torch.equal(plain.weight, untouched)
    assert forced.weight.data_ptr() == stored
    assert forced.weight.detach().square().mean(dim=1).sqrt() == pytest.approx([1] * 8, abs=1e-3)


def test_a_plain_layer_starts_as_torch_starts_its_own() -> None:
    torch.manual_seed(0)
    ours, theirs = Conv(16, 64, 3, Learned()).weight, torch.nn.Conv2d(16, 64, 3, bias=False).weight
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.01)


@settings(deadline=None, max_examples=10)
@given(seed=seeds, t=st.floats(0.1, 0.9))
def test_magnitude_preserving_operations_keep_unit_magnitude(seed: int, t: float) -> None:
    a, b = normal(seed, 16, 48, 16, 16), normal(seed + 1, 16, 16, 16, 16)
    for y in (mp_silu(a), mp_sum(a[:, :16], b, t), mp_cat(a, b, t)):
        assert y.square().mean().sqrt().item() == pytest.approx(1, rel=0.02)


def test_the_concatenation_gives_its_second_part_the_share_asked_for() -> None:
    y = mp_cat(torch.ones(1, 30, 2, 2), torch.ones(1, 10, 2, 2), 0.25)
    first, second = (part.square().sum().sqrt().item() for part in (y[:, :30], y[:, 30:]))
    assert second / (first + second) == pytest.approx(0.25)


def test_pixel_norm_brings_every_pixel_to_unit_magnitude() -> None:
    y = pixel_norm(normal(0, 2, 24, 4, 4) * 50, "inside")
    assert y.square().mean(dim=1).flatten() == pytest.approx([1] * 32)


def test_a_linear_layer_is_float32_under_autocast() -> None:
    layer, x = Linear(32, 8, Learned("forced")), normal(0, 4, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.float()))
        assert layer(x).dtype == torch.float32
    assert torch.equal(layer(x), x @ layer.effective_weight().T)


def test_fourier_features_of_the_magnitude_preserving_kind_have_unit_magnitude() -> None:
    torch.manual_seed(0)
    assert Fourier(20_000, 2**0.5)(torch.tensor([0.3])).square().mean().item() == pytest.approx(1, rel=0.05)


def test_down_undoes_up() -> None:
    x = normal(0, 1, 3, 4, 4)
    torch.testing.assert_close(down(up(x)), x)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["group", "group_affine", "group_rms"])
def test_group_norm_keeps_channels_last_and_its_numbers(kind: GroupNormKind) -> None:
    x, norm = (normal(0, 2, 64, 8, 8) * 3 + 1).to(pick_device()), GroupNorm(64, kind).to(pick_device())
    y = norm(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, norm(x))


@pytest.mark.gpu
def test_the_group_norm_of_gpus_is_torchs() -> None:
    x = (normal(0, 2, 64, 8, 8) * 3 + 1).to(pick_device()).to(memory_format=torch.channels_last)
    y = standardized(x, 32)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, F.group_norm(x, 32))


@pytest.mark.gpu
def test_the_deterministic_average_of_gpus_is_torchs_pooling() -> None:
    x = normal(0, 2, 8, 6, 4).to(pick_device()).to(memory_format=torch.channels_last).requires_grad_()
    y = averaged(x)
    torch.testing.assert_close(y, F.avg_pool2d(x, 2))
    gradient = normal(1, *y.shape).to(pick_device())
    torch.testing.assert_close(*(torch.autograd.grad(z, x, gradient)[0] for z in (y, F.avg_pool2d(x, 2))))
