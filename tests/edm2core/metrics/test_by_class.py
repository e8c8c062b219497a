import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edm2core.errors import InputError
from edm2core.metrics.compared import Compared
from edm2core.metrics.statistics import Reference, ReferenceInfo, frechet_by_class, frechet_distance, statistics


def features(n: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)


def compared(samples: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Compared:
    real = features(100, 0)
    reference = Reference(statistics(real), ReferenceInfo(100, "digits", "", ""), real)
    classes = None if labels is None else lambda: (labels, np.arange(100) % 2)
    return Compared(samples, reference, torch.device("cpu"), None, classes)


def test_it_is_the_mean_of_the_distances_within_the_classes() -> None:
    samples, labels = features(60, 1), np.arange(60) // 30
    given = compared(samples, labels)
    value = frechet_by_class(given)["fd_by_class"]
    own = [frechet_distance(statistics(samples[labels == c]), statistics(given.real[np.arange(100) % 2 == c])) for c in (0, 1)]
    assert (value.value, given.by_class) == (pytest.approx(np.mean(own)), pytest.approx(own))
    assert value.error
    assert value.error > 0


def test_a_class_of_too_few_samples_is_named() -> None:
    with pytest.raises(InputError, match="Class 1 has 3 samples and 50 training images"):
        frechet_by_class(compared(features(60, 1), (np.arange(60) >= 57).astype(np.int64)))


def test_samples_without_known_classes_are_refused() -> None:
    with pytest.raises(InputError, match="class of each sample"):
        frechet_by_class(compared(features(60, 1), None))
