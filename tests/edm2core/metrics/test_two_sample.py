import numpy as np
import pytest
import torch
from torch import Tensor

from edm2core.metrics.two_sample import two_sample


def normal(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).standard_normal((n, 4)) + shift)


def test_the_accuracy_is_that_of_leaving_each_image_out() -> None:
    samples, real = normal(40, 0, 0.5), normal(40, 1)
    mixed, fake = torch.cat([real, samples]), torch.arange(80) >= 40
    apart = torch.cdist(mixed, mixed).fill_diagonal_(torch.inf)
    right = fake[apart.argmin(1)] == fake
    found = two_sample(samples, real)
    assert [each.value for each in found.values()] == pytest.approx([float(of.double().mean()) for of in (right, right[:40], right[40:])])


def test_different_sets_are_told_apart_and_copies_never() -> None:
    assert two_sample(normal(50, 0, 20.0), normal(50, 1))["nn_test"].value == 1.0
    assert two_sample(normal(50, 0) + 1e-6, normal(50, 0))["nn_test"].value == 0.0


def test_of_equal_distributions_it_is_a_half_with_the_error_and_interval_that_it_says() -> None:
    found = [two_sample(normal(100, 2 * seed), normal(100, 2 * seed + 1)) for seed in range(200)]
    for own in zip(*(each.values() for each in found), strict=True):
        values = np.array([each.value for each in own])
        assert abs(values.mean() - 0.5) < 4 * values.std() / np.sqrt(len(values))
        errors = np.array([each.error for each in own])
        assert np.sqrt(np.square(errors).mean()) == pytest.approx(values.std(ddof=1), rel=0.2)
    intervals = [each["nn_test"].interval or (1.0, 0.0) for each in found]
    inside = [low <= 0.5 <= high for low, high in intervals]
    assert 0.9 < np.mean(inside) <= 1.0


def test_of_the_larger_set_as_many_are_taken_as_the_smaller_has() -> None:
    found = two_sample(normal(30, 0), normal(300, 1))
    assert 0.25 < found["nn_test"].value < 0.75
    assert found == two_sample(normal(30, 0), normal(300, 1))
