import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edm2core.diffusion.posthoc import gamma, mix, mix_at, power_beta
from edm2core.errors import InputError

REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "ema.json").read_text())


def test_gamma_of_a_relative_width() -> None:
    for sigma_rel, expected in REFERENCE["gamma_of_sigma_rel"].items():
        assert gamma(float(sigma_rel)) == pytest.approx(expected, rel=1e-9)


@given(st.floats(0.005, 0.288))
def test_gamma_gives_the_relative_width_it_was_asked_for(sigma_rel: float) -> None:
    g = gamma(sigma_rel)
    assert math.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(sigma_rel)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.3, 1.0])
def test_a_width_that_no_average_has_is_refused(sigma_rel: float) -> None:
    with pytest.raises(InputError, match=str(sigma_rel)):
        gamma(sigma_rel)


def test_beta_of_a_step() -> None:
    for case in REFERENCE["beta"]:
        assert power_beta(case["sigma_rel"], case["t_next"], case["t_delta"]) == pytest.approx(case["beta"], rel=1e-9)


def test_the_coefficients_of_a_mix() -> None:
    for case in REFERENCE["posthoc"]:
        ours = mix(case["in_t"], case["in_sigma_rel"], case["out_t"], case["out_sigma_rel"]).coefficients
        np.testing.assert_allclose(ours, case["coefficients"], rtol=1e-6, atol=1e-12)
        assert ours.sum() == pytest.approx(1)


def test_a_stored_average_is_rebuilt_from_itself() -> None:
    times, widths = [1.0, 1.0, 2.0, 2.0], [0.05, 0.1, 0.05, 0.1]
    mixes = [mix(times, widths, time, width).coefficients for time, width in zip(times, widths, strict=True)]
    np.testing.assert_allclose(mixes, np.eye(4), atol=1e-9)


@pytest.mark.parametrize(("count", "errors"), [(8, (0.37, 0.16, 0.03)), (20, (0.16, 0.05, 0.006)), (64, (0.02, 0.006, 0.001))])
def test_the_profiles_error_falls_with_the_number_of_stored_averages(count: int, errors: tuple[float, ...]) -> None:
    for sigma_rel, error in zip((0.015, 0.025, 0.15), errors, strict=True):
        found = mix_at(range(1, count), [0.05, 0.1], count, sigma_rel).error
        assert round(found, len(str(error)) - 2) == error


@given(st.lists(st.integers(1, 200), min_size=1, max_size=12, unique=True), st.floats(0.02, 0.25))
def test_the_profiles_error_is_that_of_the_profiles(epochs: list[int], sigma_rel: float) -> None:
    """Compared with both profiles drawn point by point."""
    times = [e for e in sorted(epochs) for _ in range(2)]
    found = mix(times, [0.05, 0.1] * len(epochs), max(epochs), sigma_rel)
    points = (np.arange(20_000) + 0.5) / 20_000 * max(epochs)

    def profile(time: float, width: float) -> np.ndarray:
        g = gamma(width)
        return np.where(points <= time, (g + 1) * (points / time) ** g / time, 0.0)

    made = sum(c * profile(t, w) for c, t, w in zip(found.coefficients, times, [0.05, 0.1] * len(epochs), strict=True))
    wanted = profile(max(epochs), sigma_rel)
    assert found.error == pytest.approx(float(np.sqrt(((made - wanted) ** 2).mean() / (wanted**2).mean())), abs=0.01)


def test_more_averages_never_make_it_worse() -> None:
    errors = [mix_at(range(1, count), [0.05, 0.1], count, 0.03).error for count in range(2, 40)]
    assert all(later < before for before, later in pairwise(errors))


def test_a_stored_width_needs_no_mixing() -> None:
    found = mix_at([1, 2, 3], [0.05, 0.1], 4, 0.1)
    np.testing.assert_allclose(found.coefficients, [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-9)
    assert found.error < 1e-6
