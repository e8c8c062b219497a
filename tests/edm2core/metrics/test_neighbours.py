from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from edm2core.metrics import neighbours
from edm2core.metrics.neighbours import density_and_coverage, memorised, nearest


def normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).standard_normal((n, dimensions)), dtype=torch.float32)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 7)


def test_the_nearest_are_those_of_all_distances() -> None:
    x, y = normal(30, 4, 0).double(), normal(50, 4, 1).double()
    every = (x[:, None] - y[None]).norm(dim=2)
    found = nearest(x, y, 3)
    torch.testing.assert_close(found.distances, every.sort(dim=1).values[:, :3])
    assert torch.equal(found.indices, every.argsort(dim=1)[:, :3])


def test_among_themselves_none_is_its_own_neighbour_but_a_copy_is() -> None:
    x = normal(30, 4, 0)
    x[20] = x[3]
    found = nearest(x, x, 1, among_themselves=True)
    assert (found.indices[:, 0] != torch.arange(30)).all()
    assert (found.indices[3].item(), found.indices[20].item()) == (20, 3)
    assert found.distances[3].item() == pytest.approx(0, abs=1e-6)


def test_density_and_coverage_are_as_defined() -> None:
    samples, real = normal(40, 3, 0).double(), normal(60, 3, 1).double()
    apart = (real[:, None] - real[None]).norm(dim=2)
    radii = apart.sort(dim=1).values[:, 5]  # the nearest is itself
    within = (samples[:, None] - real[None]).norm(dim=2) < radii
    assert density_and_coverage(samples, real, 5) == pytest.approx((within.sum().item() / (5 * 40), within.any(0).double().mean().item()))


def test_equal_distributions_have_the_density_and_coverage_that_theory_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 512)
    n, m, k = 400, 300, 5
    found = np.array([density_and_coverage(normal(m, 8, 2 * seed), normal(n, 8, 2 * seed + 1), k) for seed in range(40)])
    expected = 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert abs(found[:, 0].mean() - 1) < 4 * error[0]
    assert abs(found[:, 1].mean() - expected) < 4 * error[1]


def test_copies_are_found_with_what_they_are_copies_of() -> None:
    training, fresh = normal(200, 16, 0), normal(90, 16, 1)
    copies = training[[5, 77, 130]] + 0.01
    found = memorised(torch.cat([fresh, copies]), training, pairs=5)
    assert found.share == pytest.approx(3 / 93)
    assert set(zip(found.samples[:3], found.training[:3], strict=True)) == {(90, 5), (91, 77), (92, 130)}
    assert found.ratios == sorted(found.ratios)
    assert memorised(fresh, training).share == 0


def test_an_exact_copy_of_an_image_that_occurs_twice_counts() -> None:
    training = normal(50, 2048, 0)
    training[25:] = training[:25]
    assert memorised(training[:25], training).share == 1
