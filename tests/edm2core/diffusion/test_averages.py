import numpy as np
import pytest
import torch
from ema_pytorch import EMA
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edm2core.diffusion.averages import FixedEma, PowerEma
from edm2core.diffusion.posthoc import gamma, mix


@pytest.mark.parametrize("beta", [0.9993, 0.9])  # the cap is reached at update 32 with .9, never here with .9993
def test_the_fixed_ema_is_the_librarys_bit_for_bit_warm_up_included(beta: float) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    weights = list(module.parameters())
    library, ours = EMA(module, beta=beta, update_after_step=0, update_every=1), FixedEma(weights, beta)
    for _ in range(200):
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn_like(weight))
        library.update()
        ours.update(weights, batch=1)
        assert all(torch.equal(a, b) for a, b in zip(ours.weights, library.ema_model.parameters(), strict=True))


@settings(deadline=None, max_examples=25)
@given(sigma_rel=st.floats(0.01, 0.25), batches=st.lists(st.integers(1, 600), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_the_power_average_is_its_closed_form(sigma_rel: float, batches: list[int], seed: int) -> None:
    """The products of β telescope: the step from s to t weighs (t/T)^(γ+1) - (s/T)^(γ+1)."""
    values = torch.randn(len(batches), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    average = PowerEma([values[0]], sigma_rel)
    for value, batch in zip(values, batches, strict=True):
        average.update([value], batch)
    ends = np.cumsum([0, *batches]) / sum(batches)
    shares = torch.from_numpy(np.diff(ends ** (gamma(sigma_rel) + 1)))
    torch.testing.assert_close(average.weights[0], (shares[:, None] * values).sum(dim=0))
    assert average.count == sum(batches)


def test_the_first_update_copies() -> None:
    value = torch.randn(3)
    for average in (FixedEma([torch.zeros(3)]), PowerEma([torch.zeros(3)], 0.1)):
        average.update([value], batch=512)
        assert torch.equal(average.weights[0], value)
        assert average.weights[0].data_ptr() != value.data_ptr()


@pytest.mark.parametrize("kind", [FixedEma, lambda weights: PowerEma(weights, 0.05)])
def test_an_average_goes_on_from_its_weights_and_count(kind: type[FixedEma]) -> None:
    values = torch.randn(20, 3)
    whole = kind([values[0]])
    resumed = kind([torch.zeros(3)])
    for number, value in enumerate(values):
        if number == 9:
            resumed.load(whole.weights, whole.count)
        whole.update([value], batch=4)
        if number >= 9:
            resumed.update([value], batch=4)
    assert torch.equal(resumed.weights[0], whole.weights[0])
    with pytest.raises(ValueError, match="argument"):
        resumed.load([], 0)


def test_a_width_between_the_stored_ones_is_rebuilt_by_mixing() -> None:
    generator = np.random.default_rng(0)
    steps = [torch.from_numpy(step) for step in generator.standard_normal((320, 8)).cumsum(axis=0)]
    stored, wanted = {width: PowerEma([steps[0]], width) for width in (0.05, 0.1)}, PowerEma([steps[0]], 0.075)
    kept: list[tuple[float, float, torch.Tensor]] = []
    for number, step in enumerate(steps, start=1):
        wanted.update([step], batch=1)
        for width, average in stored.items():
            average.update([step], batch=1)
            if number % 10 == 0:
                kept.append((number, width, average.weights[0].clone()))
    times, widths, tensors = zip(*kept, strict=True)
    coefficients = mix(times, widths, 320, 0.075).coefficients[:, None]
    rebuilt = (torch.from_numpy(coefficients) * torch.stack(tensors)).sum(dim=0)
    nearest = min((wanted.weights[0] - average.weights[0]).norm() for average in stored.values())
    assert (rebuilt - wanted.weights[0]).norm() < 0.05 * nearest
