import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from edm2core.metrics import neighbours
from edm2core.metrics.neighbours import density_and_coverage, memorised, nearest, precision_and_recall


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


def test_copies_are_found_with_their_originals() -> None:
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


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("copies", [1, 2, 7])
def test_of_identical_sets_every_share_is_one(offset: float, copies: int) -> None:
    """Of each image `copies`: where a ball reaches to no other place (more copies than neighbours), its open inside is empty."""
    x = (normal(210 // copies, 48, 3) + offset).repeat(copies, 1)
    assert precision_and_recall(x, x) == (1, 1)
    expected = {1: (1.0, 1.0), 2: (4 / 5, 1.0), 7: (0.0, 0.0)}[copies]  # 2: the fifth nearest is one of a pair, so 4 lie inside
    assert density_and_coverage(x, x) == expected


def test_an_order_of_the_images_changes_nothing() -> None:
    x, shuffled = normal(300, 64, 4), torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert density_and_coverage(x[shuffled], x) == (1, 1)


def test_ties_count_in_closed_balls_and_not_in_open_ones() -> None:
    """On a line of whole numbers with 2 neighbours, the last one's ball has radius 2 and the one before has radius 1."""
    real = torch.arange(1.0, 41.0)[:, None].repeat(1, 3)
    inside, edge, outside = (torch.full((1, 3), at) for at in (41.0, 42.0, 43.0))
    assert [density_and_coverage(x, real, 2)[0] for x in (inside, edge, outside)] == [1 / 2, 0, 0]
    assert [precision_and_recall(torch.cat([x, real[:9]]), real, 2)[0] for x in (inside, edge, outside)] == [1, 1, 9 / 10]


def test_precision_and_recall_are_as_defined() -> None:
    samples, real = 0.8 * normal(40, 6, 0).double() + 0.5, normal(60, 6, 1).double()

    def share(queries: Tensor, centres: Tensor) -> float:
        radii = (centres[:, None] - centres[None]).norm(dim=2).sort(dim=1).values[:, 3]
        return float(((queries[:, None] - centres[None]).norm(dim=2) <= radii).any(1).double().mean())

    expected = share(samples, real), share(real, samples)
    assert precision_and_recall(samples, real) == expected
    assert 0 < min(expected) < max(expected) < 1


@pytest.mark.parametrize("metric", [precision_and_recall, density_and_coverage])
def test_a_large_mean_takes_nothing_from_what_sets_differ_in(metric: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    """Features are rounded to multiples of 2⁻¹⁰, which a mean of 1000 leaves exact in single precision."""
    samples, real = ((normal(300, 64, seed) * 1024).round() / 1024 for seed in (5, 6))
    assert metric(samples + 1000, real + 1000) == metric(samples, real)


def test_the_nearest_are_exact_where_matrix_products_cannot_tell() -> None:
    """Two heaps of small spread that are far apart, in double precision: a product's rounding is larger than the distances within."""
    heaps = torch.cat([1e-6 * normal(40, 8, 0).double() + 1e3, 1e-6 * normal(40, 8, 1).double() - 1e3])
    every = (heaps[:, None] - heaps[None]).norm(dim=2)
    found = nearest(heaps, heaps, 3, among_themselves=True)
    torch.testing.assert_close(found.distances, every.sort(dim=1).values[:, 1:4], rtol=1e-6, atol=0)
    assert density_and_coverage(heaps, heaps) == (1, 1)
    assert precision_and_recall(heaps, heaps) == (1, 1)
