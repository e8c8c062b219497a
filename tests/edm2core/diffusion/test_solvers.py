"""Every solver against an independent implementation, and its order of convergence where the solution is known."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_edm_dpmsolver_multistep as edm_dpmpp
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from scipy.integrate import solve_ivp
from torch import Tensor

from edm2core.config.settings import SampleSettings
from edm2core.diffusion.latents import latents
from edm2core.diffusion.noise_levels import karras, uniform_logsnr
from edm2core.diffusion.solvers import Solver
from edm2core.registry import SOLVERS, load

MEANS, WIDTHS, SHARES = (torch.tensor(v, dtype=torch.float64) for v in ([-0.7, 0.1, 0.6], [0.15, 0.3, 0.1], [0.3, 0.5, 0.2]))
INDICES, SHAPE = [5, 0, 49_999, 3], (1, 4, 4)


def denoise(x: Tensor, sigma: float) -> Tensor:
    """The exact D(x; σ) of numbers that are each from a mixture of three normal distributions."""
    variance = WIDTHS**2 + sigma**2
    offset = x[..., None].double() - MEANS
    share = torch.softmax(SHARES.log() - variance.log() / 2 - offset**2 / (2 * variance), -1)
    return (share * (MEANS + WIDTHS**2 / variance * offset)).sum(-1).to(x)


def solver_of(name: str, **options: Any) -> Solver:
    return partial(load(SOLVERS[name].solve), **options)


def noise(step: int) -> Tensor:
    return latents(0, 0, INDICES, SHAPE, step + 1)


def no_noise(step: int) -> Tensor:
    raise AssertionError("a deterministic solver asked for noise")


def diffusers_images(scheduler: Any, sigmas: Sequence[float], start: Tensor, scaled: bool = False) -> Tensor:
    """What a scheduler of diffusers makes of the same latents at the same noise levels, all in float64.

    Schedulers that are `scaled` have x / √(σ² + 1) as their state.
    """
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True
    x = start * sigmas[0]
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        scales = [math.hypot(level, 1) if scaled else 1.0 for level in (sigma, following)]
        x = scheduler.step(denoise(x, sigma), scheduler.timesteps[i], x / scales[0])[0] * scales[1]
    return x


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a scheduler of diffusers that takes D itself as the network's output, and our noise for its own."""

    def made(kind: Any, **settings: Any) -> Any:
        scheduler, steps = kind(**settings), iter(range(1000))
        monkeypatch.setattr(scheduler, "convert_model_output", lambda output, sample: output, raising=False)
        monkeypatch.setattr(scheduler, "precondition_outputs", lambda sample, output, sigma: output, raising=False)
        monkeypatch.setattr(edm_dpmpp, "randn_tensor", lambda *_, **__: noise(next(steps)).double())
        return scheduler

    return made


DPMPP = edm_dpmpp.EDMDPMSolverMultistepScheduler
UNIPC = {"prediction_type": "sample", "lower_order_final": True}


@pytest.mark.parametrize("schedule", [karras, uniform_logsnr])
@pytest.mark.parametrize("steps", [4, 10, 18])
@pytest.mark.parametrize(
    ("solver", "scheduler", "settings"),
    [
        (solver_of("euler"), EDMEulerScheduler, {}),
        (solver_of("dpmpp_2m"), DPMPP, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        (solver_of("dpmpp_2m_sde"), DPMPP, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
        *[(solver_of("unipc", order=order), UniPCMultistepScheduler, {"solver_order": order, **UNIPC}) for order in (1, 2, 3)],
    ],
    ids=["euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc-1", "unipc-2", "unipc-3"],
)
def test_a_solver_draws_what_diffusers_draws(
    reference: Any, solver: Solver, scheduler: Any, settings: dict[str, Any], steps: int, schedule: Any
) -> None:
    start, sigmas = latents(0, 0, INDICES, SHAPE).double(), schedule(steps).tolist()
    theirs = diffusers_images(reference(scheduler, **settings), sigmas, start, scaled=scheduler is UniPCMultistepScheduler)
    torch.testing.assert_close(solver(denoise, start * sigmas[0], sigmas, noise), theirs.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 18])
def test_heun_draws_what_diffusers_draws(steps: int) -> None:
    start, sigmas = latents(0, 0, INDICES, SHAPE).double(), karras(steps).tolist()
    scheduler = HeunDiscreteScheduler(prediction_type="epsilon")
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor([sigmas[0], *(level for level in sigmas[1:-1] for _ in range(2)), 0.0], dtype=torch.float64)
    scheduler.set_begin_index(0)
    x = start * sigmas[0]
    for i, sigma in enumerate(scheduler.sigmas[:-1].tolist()):
        x = scheduler.step((x - denoise(x, sigma)) / sigma, scheduler.timesteps[i], x)[0]
    torch.testing.assert_close(solver_of("heun")(denoise, start * sigmas[0], sigmas, no_noise), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_share_of_the_noise_is_as_k_diffusion_has_it(eta: float) -> None:
    """The formulas of k-diffusion's sample_dpmpp_2m_sde, solver_type midpoint, s_noise 1, written out; diffusers has eta 1 alone."""
    sigmas = karras(12).double()
    x = start = latents(0, 0, INDICES, SHAPE).double() * sigmas[0]
    earlier, last = None, torch.tensor(0.0)
    for i in range(12):
        denoised = denoise(x, sigmas[i].item())
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        t, s = -sigmas[i].log(), -sigmas[i + 1].log()
        h = s - t
        x = sigmas[i + 1] / sigmas[i] * (-eta * h).exp() * x + (-h - eta * h).expm1().neg() * denoised
        if earlier is not None:
            x = x + 0.5 * (-h - eta * h).expm1().neg() * (1 / (last / h)) * (denoised - earlier)
        x = x + noise(i).double() * sigmas[i + 1] * (-2 * eta * h).expm1().neg().sqrt()
        earlier, last = denoised, h
    ours = solver_of("dpmpp_2m_sde", eta=eta)(denoise, start, sigmas.tolist(), noise)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-12)
    still = solver_of("dpmpp_2m")(denoise, start, sigmas.tolist(), no_noise)
    assert torch.equal(ours, still) is (eta == 0)


@pytest.fixture(scope="module")
def solution() -> tuple[Tensor, Tensor]:
    """Latents, and the images that the exact flow makes of them: to sigma_min by an integrator of eighth order, then D."""

    def flow(log_sigma: float, x: Any) -> Any:
        return x - denoise(torch.from_numpy(x), math.exp(log_sigma)).numpy()

    start = np.linspace(-2, 2, 9)
    end = solve_ivp(flow, (math.log(80), math.log(0.002)), start * 80, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return torch.from_numpy(start), denoise(torch.from_numpy(end), 0.002)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("euler", {}, 1),
        ("heun", {}, 2),
        ("dpmpp_2m", {}, 2),
        ("unipc", {"order": 1}, 2),
        ("unipc", {"order": 2}, 3),
        ("unipc", {"order": 3}, 4),
    ],
    ids=str,
)
def test_the_order_of_convergence(solution: tuple[Tensor, Tensor], name: str, options: dict[str, Any], order: int) -> None:
    start, exact = solution

    def error(steps: int) -> float:
        sigmas = karras(steps).tolist()
        return (solver_of(name, **options)(denoise, start * sigmas[0], sigmas, no_noise) - exact).abs().max().item()

    assert math.log2(error(128) / error(256)) == pytest.approx(order, abs=0.1)


def test_the_stochastic_solver_draws_the_distribution_itself() -> None:
    sigmas = karras(64).tolist()
    start = latents(0, 0, [0], (200_000,)).double()
    drawn = solver_of("dpmpp_2m_sde")(denoise, start * sigmas[0], sigmas, lambda i: latents(0, 0, [0], (200_000,), i + 1))
    mean = (SHARES * MEANS).sum()
    deviation = ((SHARES * (WIDTHS**2 + MEANS**2)).sum() - mean**2).sqrt()
    assert drawn.mean().item() == pytest.approx(mean.item(), abs=0.005)
    assert drawn.std().item() == pytest.approx(deviation.item(), abs=0.005)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_planning_knows_how_often_a_solver_evaluates_the_network(name: str, steps: int) -> None:
    calls: list[float] = []

    def counted(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return denoise(x, sigma)

    sigmas = karras(steps).tolist()
    options = SampleSettings.model_validate({"solver": name}).options_of("solver")
    images = solver_of(name, **options)(counted, latents(0, 0, INDICES, SHAPE).double() * 80, sigmas, noise)
    assert len(calls) == SOLVERS[name].total(steps)
    assert images.shape == (4, *SHAPE)
    assert images.dtype == torch.float64


@pytest.mark.parametrize("name", SOLVERS)
def test_an_images_bits_do_not_depend_on_its_batch(name: str) -> None:
    options = {"eta": 1.0} if "eta" in SOLVERS[name].options else {}
    sigmas = karras(6).tolist()

    def drawn(indices: list[int]) -> Tensor:
        start = latents(0, 0, indices, SHAPE) * sigmas[0]
        return solver_of(name, **options)(denoise, start.double(), sigmas, lambda i: latents(0, 0, indices, SHAPE, i + 1))

    assert torch.equal(torch.cat([drawn(INDICES[:1]), drawn(INDICES[1:])]), drawn(INDICES))
