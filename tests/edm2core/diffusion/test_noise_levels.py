from typing import Any

import pytest
import torch

from edm2core.config.settings import SampleSettings
from edm2core.diffusion.noise_levels import karras, levels_of, probe_sigma, uniform_logsnr
from edm2core.errors import InputError


def test_the_probes_level_counts_from_the_smallest() -> None:
    assert probe_sigma(1) == pytest.approx(0.002)
    assert probe_sigma(18) == pytest.approx(80)
    for t in (0, 19, -1):
        with pytest.raises(InputError, match=str(t)):
            probe_sigma(t)


@pytest.mark.parametrize("schedule", [karras, uniform_logsnr])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_schedule_of_one_step_is_refused(schedule: Any, steps: int) -> None:
    with pytest.raises(InputError, match=f"at least 2 steps, not {steps}"):
        schedule(steps)


def test_even_steps_in_ln_sigma_go_from_the_same_first_level_to_the_same_last_one() -> None:
    levels = uniform_logsnr(9, sigma_min=0.01, sigma_max=50.0)
    ratios = (levels[1:-1] / levels[:-2]).tolist()
    assert ratios == pytest.approx([(0.01 / 50) ** (1 / 8)] * 8, rel=1e-12)
    assert (levels[0].item(), levels[-2].item(), levels[-1].item()) == pytest.approx((50, 0.01, 0))
    torch.testing.assert_close(karras(9, sigma_min=0.01, sigma_max=50.0, rho=1e6), levels, rtol=1e-4, atol=0)


def test_the_settings_say_the_levels() -> None:
    assert torch.equal(levels_of(SampleSettings(steps=5, rho=3.0)), karras(5, rho=3.0))
    assert torch.equal(levels_of(SampleSettings(steps=5, schedule="uniform_logsnr")), uniform_logsnr(5))
    listed = SampleSettings(schedule=(80.0, 7.5, 0.25, 0.01))
    assert levels_of(listed).tolist() == [80, 7.5, 0.25, 0.01, 0]
    assert (listed.steps, listed.sigma_max, listed.sigma_min) == (4, 80, 0.01)
