import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from edm2core.metrics import kernel_distance as kernel
from edm2core.metrics.kernel_distance import kernel_distance

SETS = 200


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).standard_normal((n, 8)) + shift, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "images", "subset"),
    [(230, 310, 200), *(pytest.param(*sizes, 1000, marks=pytest.mark.slow) for sizes in ((1000, 1000), (1300, 2100)))],
)
def test_the_value_is_torch_fidelitys(monkeypatch: pytest.MonkeyPatch, n: int, images: int, subset: int) -> None:
    monkeypatch.setattr(kernel, "SUBSET", subset)
    x, y = features(n, 1, 0.2), features(images, 2)
    given = [torch.from_numpy(each).double() for each in (x, y)]
    library = kid_features_to_metric(*given, kid_subset_size=subset, verbose=False)
    assert kernel_distance(x, y)[0] == pytest.approx(library["kernel_inception_distance_mean"], rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize(
    ("n", "images"),
    [(100, 110), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((110, 5000), (100, 144), (205, 1000), (5000, 144)))],
)
def test_the_error_is_the_deviation_between_sets_of_samples(monkeypatch: pytest.MonkeyPatch, n: int, images: int, shift: float) -> None:
    """A tenth of KID's numbers; `python -m bench.deviations kid` simulates all of them. The true deviation is known to 5 % here."""
    monkeypatch.setattr(kernel, "SUBSET", 100)
    monkeypatch.setattr(kernel, "SUBSETS", 25)
    real = features(images, 0)
    found = np.array([kernel_distance(features(n, seed, shift), real) for seed in range(1, SETS + 1)])
    ratio = np.sqrt(np.mean(found[:, 1] ** 2)) / np.std(found[:, 0], ddof=1)
    assert 0.9 * 0.85 < ratio < 1.6 * 1.15


def test_the_error_of_samples_that_are_all_one_is_zero() -> None:
    assert kernel_distance(np.ones((1000, 4), np.float32), features(1000, 0)[:, :4])[1] == pytest.approx(0, abs=1e-12)


def test_the_error_is_the_jackknifes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every subset is all samples: each left out in turn, and the distance computed anew."""
    monkeypatch.setattr(kernel, "SUBSET", 12)
    monkeypatch.setattr(kernel, "SUBSETS", 1)
    x, y = features(12, 1), features(12, 2)

    def distance(x: np.ndarray) -> float:
        own, other, across = ((a.astype(float) @ b.T.astype(float) / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        n, m = len(x), len(y)
        return float((own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1)) - 2 * across.mean())

    without = [distance(np.delete(x, left_out, axis=0)) for left_out in range(12)]
    assert kernel_distance(x, y) == pytest.approx((distance(x), np.sqrt(11 * np.var(without))), rel=1e-12)
