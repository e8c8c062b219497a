from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from edm2core.errors import InputError, IntegrityError
from edm2core.metrics.statistics import (
    ReferenceInfo,
    Statistics,
    frechet_distance,
    frechet_error,
    read_reference,
    statistics,
    write_reference,
)


def features(n: int, dimensions: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixed = generator.standard_normal((n, dimensions)) @ generator.standard_normal((dimensions, dimensions)) + generator.standard_normal(
        dimensions
    )
    return mixed.astype(np.float32)


def test_mean_and_covariance_are_numpys_in_double_precision() -> None:
    x = features(20000, 24, 0)  # more rows than are taken at once
    found = statistics(x)
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-12, atol=1e-13)
    assert found.n == 20000


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31), st.integers(0, 2**31))
def test_the_distance_is_the_formula_of_two_gaussians(dimensions: int, one: int, other: int) -> None:
    a, b = statistics(features(200, dimensions, one)), statistics(features(200, dimensions, other + 2**32))
    root = scipy.linalg.sqrtm(a.covariance)
    middle = np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance) - 2 * np.sqrt(middle).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_the_distance_of_independent_gaussians_is_in_closed_form() -> None:
    a = Statistics(np.array([0.0, 1.0]), np.diag([1.0, 4.0]), 100)
    b = Statistics(np.array([3.0, 1.0]), np.diag([9.0, 1.0]), 100)
    assert frechet_distance(a, b) == pytest.approx(9 + (3 - 1) ** 2 + (2 - 1) ** 2, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_it_is_torch_fidelitys_but_for_the_rounding_of_its_float32_mean() -> None:
    x, y = features(3000, 16, 1), features(3000, 16, 2)
    library = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)), verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(library, rel=1e-5)


@pytest.mark.parametrize("dead", [0, 8, 63])
def test_the_distance_of_identical_sets_is_zero_whatever_their_rank(dead: int) -> None:
    """With features that are the same for all images, roots of the eigenvalues of a product of covariances are lost in rounding."""
    x = 30 * features(500, 64, 0)
    x[:, :dead] = x[:, 63:] if dead == 63 else 1.0
    own = statistics(x)
    assert frechet_distance(own, own) == pytest.approx(0, abs=1e-13 * np.trace(own.covariance))
    assert frechet_distance(own, own) >= 0


@pytest.mark.parametrize("dead", [1, 8, 60])
def test_features_that_are_zero_everywhere_change_nothing(dead: int) -> None:
    x, y = features(500, 64, 1), features(500, 64, 2)
    padded = [np.concatenate([z, np.zeros((500, dead), np.float32)], axis=1) for z in (x, y)]
    turned = [(z.astype(np.float64) @ rotation(64 + dead)) for z in padded]
    expected = frechet_distance(statistics(x), statistics(y))
    assert frechet_distance(*(Statistics(z.mean(0), np.cov(z.T), 500) for z in turned)) == pytest.approx(expected, rel=1e-11)


def rotation(dimensions: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(np.random.default_rng(9).standard_normal((dimensions, dimensions)))[0])


def test_too_few_images_for_a_covariance_are_refused() -> None:
    with pytest.raises(InputError, match="64 images are too few") as caught:
        statistics(features(64, 64, 0))
    assert "at least 65" in caught.value.do_next
    statistics(features(65, 64, 0))


def test_features_that_are_not_finite_are_refused() -> None:
    x = features(50, 3, 0)
    x[7, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        statistics(x)


def test_the_jackknifes_error_is_the_spread_of_independent_sets() -> None:
    reference = statistics(features(4000, 6, 0))
    mixing = np.random.default_rng(1).standard_normal((6, 6))
    sets = [(np.random.default_rng(seed).standard_normal((500, 6)) @ mixing).astype(np.float32) for seed in range(100, 400)]
    spread = np.std([frechet_distance(statistics(x), reference) for x in sets], ddof=1)
    errors = np.array([frechet_error(x, reference) for x in sets[:100]])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.15)


def test_the_jackknife_of_equal_blocks_is_zero() -> None:
    block = features(30, 3, 0)
    assert frechet_error(np.tile(block, (10, 1)), statistics(features(50, 3, 1))) == pytest.approx(0, abs=1e-9)


def test_a_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    x = features(50, 3, 0)
    reference, info = statistics(x), ReferenceInfo(50, "digits", "a" * 64, "b" * 64)
    write_reference(tmp_path, reference, info, x)
    again = read_reference(tmp_path)
    assert (again.statistics.n, again.info, again.features) == (50, info, None)
    np.testing.assert_array_equal(again.statistics.mean, reference.mean)
    np.testing.assert_array_equal(again.statistics.covariance, reference.covariance)
    with_features = read_reference(tmp_path, with_features=True)
    np.testing.assert_array_equal(with_features.features, x)
    (tmp_path / "reference.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(IntegrityError, match="These are no reference statistics"):
        read_reference(tmp_path)
