import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edm2core.config import load_recipe
from edm2core.config.settings import SampleSettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.latents import latents
from edm2core.diffusion.noise_levels import karras, levels_of
from edm2core.diffusion.sampler import Guidance, denoise_with, draw, to_uint8
from edm2core.diffusion.solvers import heun
from edm2core.errors import InputError
from edm2core.registry import SOLVERS, load

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
    images = draw(denoiser, latents(0, 0, range(2), SHAPE))  # type: ignore[arg-type]
    assert len(denoiser.calls) == 35
    assert {dtype for dtype, _ in denoiser.calls} == {torch.float32}
    assert images.dtype == torch.float64


def test_a_state_of_single_precision_changes_rounding_only() -> None:
    start = latents(0, 0, range(2), SHAPE)
    double, single = (draw(Gaussian(0.1), start, state=state) for state in (torch.float64, torch.float32))  # type: ignore[arg-type]
    assert single.dtype == torch.float32
    assert not torch.equal(single.double(), double)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_every_evaluation_is_told_the_classes() -> None:
    denoiser, labels = Gaussian(0.1), torch.tensor([3, 1])
    draw(denoiser, latents(0, 0, range(2), SHAPE), 3, labels=labels)  # type: ignore[arg-type]
    assert len(denoiser.labels) == 5
    assert all(seen is labels for seen in denoiser.labels)


def test_the_solution_is_of_second_order() -> None:
    """The exact flow of a normal distribution only scales the latents."""
    start, std = latents(0, 0, range(2), SHAPE).double(), 0.1
    exact = PixelScale().to_images(start * 80 * std / math.hypot(80, std))
    errors = [(draw(Gaussian(std), start, steps, clip=False) - exact).abs().max().item() for steps in (32, 64)]  # type: ignore[arg-type]
    assert 3 < errors[0] / errors[1] < 6
    assert errors[1] < 1e-3


def test_denoised_images_are_clipped_where_zero_and_one_map_to_and_mapped_back() -> None:
    class Bright(Gaussian):
        def forward(self, x: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
            return torch.full_like(x, 7.0)

    pixel_scale = PixelScale(scale=0.5, offset=-0.125)
    images = draw(Bright(1, pixel_scale), latents(0, 0, range(2), SHAPE), 4)  # type: ignore[arg-type]
    torch.testing.assert_close(images, torch.ones_like(images))
    denoiser = Gaussian(0.01, pixel_scale)
    mean = draw(denoiser, latents(0, 0, range(50), SHAPE), clip=False).mean().item()  # type: ignore[arg-type]
    assert mean == pytest.approx(0.25, abs=0.01)


@settings(deadline=None, max_examples=20)
@given(cut=st.integers(0, 6), eta=st.sampled_from([0.0, 0.5, 1.0]), state=st.sampled_from([torch.float64, torch.float32]))
def test_an_images_bits_do_not_depend_on_its_batch_where_the_denoisers_do_not(cut: int, eta: float, state: torch.dtype) -> None:
    def images(indices: list[int]) -> Tensor:
        def churn(step: int) -> Tensor:
            return latents(0, 0, indices, SHAPE, step + 1)

        return draw(Gaussian(0.3), latents(0, 0, indices, SHAPE), 6, partial(heun, eta=eta), noise=churn, state=state)  # type: ignore[arg-type]

    indices = [5, 0, 49_999, 3, 17, 4]
    assert torch.equal(torch.cat([images(indices[:cut]), images(indices[cut:])]), images(indices))


def test_churn_changes_the_images() -> None:
    still, churned = (
        draw(Gaussian(0.3), latents(0, 0, [0], SHAPE), 18, partial(heun, eta=eta), noise=lambda i: latents(0, 0, [0], SHAPE, i + 1))  # type: ignore[arg-type]
        for eta in (0.0, 1.0)
    )
    assert not torch.equal(still, churned)


def test_churn_raises_sigma_only_within_its_range() -> None:
    denoiser = Gaussian(0.3)
    draw(denoiser, latents(0, 0, [0], SHAPE), 18, partial(heun, eta=1.0), noise=lambda i: torch.zeros(1, *SHAPE))  # type: ignore[arg-type]
    first_of_each_step = [sigma for _, sigma in denoiser.calls[::2]]
    factors = [got / planned for got, planned in zip(first_of_each_step, karras().tolist()[:-1], strict=True)]
    inside = [0.01 <= sigma <= 1 for sigma in karras().tolist()[:-1]]
    assert factors == pytest.approx([math.sqrt(2) if churned else 1 for churned in inside])
    assert 0 < sum(inside) < 18


def test_churn_without_noise_is_refused() -> None:
    with pytest.raises(InputError, match="noise"):
        draw(Gaussian(1), latents(0, 0, [0], SHAPE), 18, partial(heun, eta=0.5))  # type: ignore[arg-type]


def test_guidance_goes_beyond_the_denoiser_away_from_the_guide_within_its_interval_alone() -> None:
    denoiser, guide, x = Gaussian(0.3), Gaussian(0.6), latents(0, 0, range(2), SHAPE).double()
    denoise = denoise_with(denoiser, None, Guidance(2.5, guide, (0.1, 2.0)), clip=False, state=torch.float64)  # type: ignore[arg-type]
    for sigma, weight in ((3.0, 1.0), (2.0, 2.5), (0.7, 2.5), (0.1, 2.5), (0.05, 1.0)):
        strong, weak = (x.float() * std**2 / (std**2 + sigma**2) for std in (0.3, 0.6))
        torch.testing.assert_close(denoise(x, sigma), weak.double() + weight * (strong.double() - weak.double()), rtol=0, atol=1e-12)
    assert [sigma for _, sigma in denoiser.calls] == [3.0, 2.0, 0.7, 0.1, 0.05]
    assert [sigma for _, sigma in guide.calls] == [2.0, 0.7, 0.1]


@pytest.mark.parametrize("config", ["C", "G"])
def test_any_class_is_no_label_and_the_label_past_the_last(config: str) -> None:
    recipe = load_recipe(f"digits/{config}", {"network.classes": 10, "network.multipliers": [1], "network.attention_resolutions": [8]})
    torch.manual_seed(0)
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion).eval().requires_grad_(False)
    denoiser.network.head.gain = None if config == "C" else torch.nn.Parameter(torch.ones(()), requires_grad=False)
    x = latents(0, 0, range(2), (1, 8, 8))
    assert torch.equal(denoiser(x, 1.0, torch.tensor([10, 10])), denoiser(x, 1.0))
    weighted = denoise_with(denoiser, torch.tensor([3, 4]), Guidance(1.5), clip=False, state=torch.float64)(x, 1.0)
    told, untold = (denoiser(x, 1.0, labels).double() for labels in (torch.tensor([3, 4]), None))
    assert not torch.equal(told, untold)
    # one batch of both classes may round otherwise than two batches do
    torch.testing.assert_close(weighted, untold + 1.5 * (told - untold), rtol=0, atol=1e-5)


def test_few_images_are_told_and_not_told_their_class_in_one_batch_and_many_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits/G", {"network.classes": 10, "network.multipliers": [1], "network.attention_resolutions": [8]})
    torch.manual_seed(0)
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion).eval().requires_grad_(False)
    denoiser.network.head.gain = torch.nn.Parameter(torch.ones(()), requires_grad=False)
    x, labels, sizes = latents(0, 0, range(3), (1, 8, 8)), torch.tensor([3, 4, 9]), list[int]()
    denoiser.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    denoise = denoise_with(denoiser, labels, Guidance(2.0), clip=False, state=torch.float64)
    together = denoise(x, 1.0)
    monkeypatch.setattr("edm2core.diffusion.sampler.MOST_AT_ONCE", 2)
    torch.testing.assert_close(denoise(x, 1.0), together, rtol=0, atol=1e-5)
    assert sizes == [6, 3, 3]


def test_guidance_needs_a_guide_or_classes() -> None:
    with pytest.raises(InputError, match="class-conditional"):
        draw(Gaussian(1), latents(0, 0, [0], SHAPE), guidance=Guidance(2.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("interval", [None, (0.2, 5.0), (100.0, 200.0), (0.0, 0.5)])
@pytest.mark.parametrize("schedule", ["karras", "uniform_logsnr", (80.0, 3.0, 0.3, 0.02)])
def test_guided_evaluations_count_double(solver: str, interval: tuple[float, float] | None, schedule: Any) -> None:
    chosen = {"solver": solver, "schedule": schedule, "guidance": {"weight": 2.0, "interval": interval}, "eta": 0.0}
    how = SampleSettings.model_validate(chosen)
    denoiser, guide = Gaussian(0.3), Gaussian(0.6)
    guidance = Guidance(2.0, guide, interval or (0.0, math.inf))  # type: ignore[arg-type]
    solve = partial(load(SOLVERS[solver].solve), **how.options_of("solver"))
    draw(denoiser, latents(0, 0, [0], SHAPE), levels_of(how), solve, guidance=guidance)  # type: ignore[arg-type]
    assert how.evaluations == len(denoiser.calls) + len(guide.calls)
    assert how.guided_evaluations == len(guide.calls)


def test_uint8_is_rounded_to_the_nearest() -> None:
    images = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0, 254.4 / 255], dtype=torch.float64)
    assert to_uint8(images).tolist() == [0, 0, 1, 255, 254]
    assert to_uint8(images).dtype == torch.uint8
