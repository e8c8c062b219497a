import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edm2core.data.scale import PixelScale
from edm2core.diffusion.sampler import between, drawn_labels, heun, latents, probe_sigma, sigma_schedule, to_uint8
from edm2core.errors import InputError

SHAPE = (1, 4, 4)


class Gaussian(nn.Module):
    """The ideal denoiser of images that are normal with this standard deviation at the network's scale."""

    def __init__(self, std: float, pixel_scale: PixelScale | None = None) -> None:
        super().__init__()
        self.std, self.pixel_scale = std, pixel_scale or PixelScale()
        self.calls: list[tuple[torch.dtype, float]] = []
        self.labels: list[Tensor | None] = []

    def forward(self, x: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
        self.labels.append(labels)
        self.calls.append((x.dtype, sigma))
        return x * self.std**2 / (self.std**2 + sigma**2)


def test_eighteen_steps_are_thirty_five_evaluations_in_single_precision() -> None:
    denoiser = Gaussian(0.1)
    images = heun(denoiser, latents(0, 0, range(2), SHAPE))  # type: ignore[arg-type]
    assert len(denoiser.calls) == 35
    assert {dtype for dtype, _ in denoiser.calls} == {torch.float32}
    assert images.dtype == torch.float64


def test_a_state_of_single_precision_changes_rounding_only() -> None:
    start = latents(0, 0, range(2), SHAPE)
    double, single = (heun(Gaussian(0.1), start, state=state) for state in (torch.float64, torch.float32))  # type: ignore[arg-type]
    assert single.dtype == torch.float32
    assert not torch.equal(single.double(), double)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_every_evaluation_is_told_the_classes() -> None:
    denoiser, labels = Gaussian(0.1), torch.tensor([3, 1])
    heun(denoiser, latents(0, 0, range(2), SHAPE), steps=3, labels=labels)  # type: ignore[arg-type]
    assert len(denoiser.labels) == 5
    assert all(seen is labels for seen in denoiser.labels)


def test_an_images_class_does_not_depend_on_its_batch_and_all_are_as_frequent() -> None:
    labels = drawn_labels(0, 0, range(2000), 10)
    assert torch.equal(drawn_labels(0, 0, [7, 1999, 3], 10), labels[[7, 1999, 3]])
    assert not torch.equal(drawn_labels(0, 1, range(2000), 10), labels)
    assert labels.dtype == torch.int64
    assert all(150 < count < 250 for count in torch.bincount(labels, minlength=10).tolist())


def test_interpolated_latents_keep_their_standard_deviation() -> None:
    ends = latents(0, 0, range(8), (3, 16, 16))
    arc = between(ends[:4], ends[4:], [0.0, 0.25, 0.5, 1.0])
    assert arc.shape == (4, 4, 3, 16, 16)
    torch.testing.assert_close(arc[:, 0], ends[:4])
    torch.testing.assert_close(arc[:, 3], ends[4:])
    assert (arc.std(dim=(2, 3, 4)) - 1).abs().max() < 0.1  # a straight line's middle has 0.71


def test_the_solution_is_of_second_order() -> None:
    """The exact flow of a normal distribution only scales the latents."""
    start, std = latents(0, 0, range(2), SHAPE).double(), 0.1
    exact = PixelScale().to_images(start * 80 * std / math.hypot(80, std))
    errors = [(heun(Gaussian(std), start, steps, clip=False) - exact).abs().max().item() for steps in (32, 64)]  # type: ignore[arg-type]
    assert 3 < errors[0] / errors[1] < 6
    assert errors[1] < 1e-3


def test_denoised_images_are_clipped_where_zero_and_one_map_to_and_mapped_back() -> None:
    class Bright(Gaussian):
        def forward(self, x: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
            return torch.full_like(x, 7.0)

    pixel_scale = PixelScale(scale=0.5, offset=-0.125)
    images = heun(Bright(1, pixel_scale), latents(0, 0, range(2), SHAPE), steps=4)  # type: ignore[arg-type]
    torch.testing.assert_close(images, torch.ones_like(images))
    denoiser = Gaussian(0.01, pixel_scale)
    mean = heun(denoiser, latents(0, 0, range(50), SHAPE), clip=False).mean().item()  # type: ignore[arg-type]
    assert mean == pytest.approx(0.25, abs=0.01)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**64 - 1), cut=st.integers(0, 6), step=st.integers(0, 18))
def test_an_images_noise_does_not_depend_on_its_batch(seed: int, cut: int, step: int) -> None:
    indices = [5, 0, 49_999, 3, 17, 4]
    whole = latents(seed, 1, indices, SHAPE, step)
    parts = torch.cat([latents(seed, 1, indices[:cut], SHAPE, step), latents(seed, 1, indices[cut:], SHAPE, step)])
    assert torch.equal(whole, parts)


def test_seed_draw_image_and_step_all_change_the_noise() -> None:
    names = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    noises = [latents(seed, draw, [index], (3, 8, 8), step).flatten() for seed, draw, index, step in names]
    correlations = torch.corrcoef(torch.stack(noises)) - torch.eye(len(names))
    assert correlations.abs().max() < 0.3


def test_the_noise_is_standard_normal_and_stays_what_it_is() -> None:
    noise = latents(0, 0, range(200), (3, 8, 8)).numpy()
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs(np.mean(np.abs(noise) < 1) - 0.6827) < 0.01
    assert latents(7, 1, [3], (4,), 2)[0].tolist() == pytest.approx([-1.94032907, 1.40173006, -0.926292, 0.32647619])


@settings(deadline=None, max_examples=20)
@given(cut=st.integers(0, 6), eta=st.sampled_from([0.0, 0.5, 1.0]), state=st.sampled_from([torch.float64, torch.float32]))
def test_an_images_bits_do_not_depend_on_its_batch_where_the_denoisers_do_not(cut: int, eta: float, state: torch.dtype) -> None:
    def images(indices: list[int]) -> Tensor:
        def churn(step: int) -> Tensor:
            return latents(0, 0, indices, SHAPE, step + 1)

        return heun(Gaussian(0.3), latents(0, 0, indices, SHAPE), steps=6, eta=eta, noise=churn, state=state)  # type: ignore[arg-type]

    indices = [5, 0, 49_999, 3, 17, 4]
    assert torch.equal(torch.cat([images(indices[:cut]), images(indices[cut:])]), images(indices))


def test_churn_changes_the_images() -> None:
    still, churned = (
        heun(Gaussian(0.3), latents(0, 0, [0], SHAPE), eta=eta, noise=lambda i: latents(0, 0, [0], SHAPE, i + 1))  # type: ignore[arg-type]
        for eta in (0.0, 1.0)
    )
    assert not torch.equal(still, churned)


def test_churn_raises_sigma_only_within_its_range() -> None:
    denoiser = Gaussian(0.3)
    heun(denoiser, latents(0, 0, [0], SHAPE), eta=1.0, noise=lambda i: torch.zeros(1, *SHAPE))  # type: ignore[arg-type]
    first_of_each_step = [sigma for _, sigma in denoiser.calls[::2]]
    factors = [got / planned for got, planned in zip(first_of_each_step, sigma_schedule().tolist()[:-1], strict=True)]
    inside = [0.01 <= sigma <= 1 for sigma in sigma_schedule().tolist()[:-1]]
    assert factors == pytest.approx([math.sqrt(2) if churned else 1 for churned in inside])
    assert 0 < sum(inside) < 18


def test_churn_without_noise_is_refused() -> None:
    with pytest.raises(InputError, match="noise"):
        heun(Gaussian(1), latents(0, 0, [0], SHAPE), eta=0.5)  # type: ignore[arg-type]


def test_the_probes_level_counts_from_the_smallest() -> None:
    assert probe_sigma(1) == pytest.approx(0.002)
    assert probe_sigma(18) == pytest.approx(80)
    for t in (0, 19, -1):
        with pytest.raises(InputError, match=str(t)):
            probe_sigma(t)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_schedule_of_one_step_is_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"at least 2 steps, not {steps}"):
        sigma_schedule(steps)


def test_uint8_is_rounded_to_the_nearest() -> None:
    images = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0, 254.4 / 255], dtype=torch.float64)
    assert to_uint8(images).tolist() == [0, 0, 1, 255, 254]
    assert to_uint8(images).dtype == torch.uint8
