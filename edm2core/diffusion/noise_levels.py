"""The noise levels that a sampler goes through. `NOISE_SCHEDULES` in edm2core/registry.py lists the ways of spacing them."""

import math

import torch
from torch import Tensor

from edm2core.config.settings import SampleSettings
from edm2core.errors import InputError
from edm2core.registry import NOISE_SCHEDULES, load

PROBE_STEPS = 18  # steps of the schedule whose levels the probe's t counts


def levels_of(settings: SampleSettings) -> Tensor:
    """The sampler's noise levels, float64 [steps + 1]: they fall from sigma_max to sigma_min, and the last is 0."""
    if isinstance(settings.schedule, tuple):
        return torch.tensor([*settings.schedule, 0.0], dtype=torch.float64)
    schedule = load(NOISE_SCHEDULES[settings.schedule])
    levels: Tensor = schedule(settings.steps, sigma_min=settings.sigma_min, sigma_max=settings.sigma_max, rho=settings.rho)
    return levels


def karras(steps: int = 18, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels σ_0 = sigma_max … σ_{steps-1} = sigma_min, σ_steps = 0: float64 [steps + 1] (EDM, equation 5).

    Raises InputError for fewer than two steps: the first level is sigma_max and the last sigma_min.
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + _shares(steps) * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


def uniform_logsnr(steps: int = 18, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels as those of `karras`, but evenly spaced in ln σ, which is their limit for a large rho. `rho` has no effect."""
    high, low = math.log(sigma_max), math.log(sigma_min)
    return torch.cat([torch.exp(high + _shares(steps) * (low - high)), torch.zeros(1, dtype=torch.float64)])


def _shares(steps: int) -> Tensor:
    """0 … 1, evenly: float64 [steps]."""
    if steps < 2:
        raise InputError(f"A schedule from sigma_max to sigma_min has at least 2 steps, not {steps}.", do_next="Raise sample.steps.")
    return torch.arange(steps, dtype=torch.float64) / (steps - 1)


def probe_sigma(t: int) -> float:
    """The t-th smallest positive level of the 18-step schedule, t in 1 … 18. Raises InputError for another t."""
    if not 1 <= t <= PROBE_STEPS:
        raise InputError(f"The probe's t counts the {PROBE_STEPS} noise levels of its schedule; there is no level {t}.")
    return float(karras(PROBE_STEPS)[PROBE_STEPS - t])
