from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch_fidelity import calculate_metrics

from edm2core.metrics.extraction import extract
from edm2core.metrics.extractors.digits import DigitsFeatures, accuracy, train_digits
from edm2core.metrics.statistics import frechet_distance, statistics

Images = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def scans() -> tuple[Images, Any]:
    data = load_digits()
    return np.round(data.images / 16 * 255).astype(np.uint8)[:, None], data.target.astype(np.int64)


@pytest.fixture(scope="module")
def trained(scans: tuple[Images, Any]) -> DigitsFeatures:
    images, labels = scans
    return train_digits(images[::2], labels[::2])


def test_the_digits_extractor_classifies_unseen_digits(scans: tuple[Images, Any], trained: DigitsFeatures) -> None:
    images, labels = scans
    assert accuracy(trained, images[1::2], labels[1::2]) > 95


def test_training_the_digits_extractor_is_deterministic_and_leaves_torchs_randomness_alone(
    scans: tuple[Images, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edm2core.metrics.extractors.digits.EPOCHS", 2)
    images, labels = scans[0][:300], scans[1][:300]
    torch.manual_seed(1)
    first, drawn = train_digits(images, labels).state_dict(), torch.rand(1)
    torch.manual_seed(2)
    second = train_digits(images, labels).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)


def test_its_features_have_full_rank_and_tell_noise_from_digits(scans: tuple[Images, Any], trained: DigitsFeatures) -> None:
    images, _ = scans
    cpu = torch.device("cpu")
    a, b = (statistics(extract(trained, [part], cpu)) for part in (images[::2], images[1::2]))
    noise = statistics(extract(trained, [np.random.default_rng(0).integers(0, 256, (900, 1, 8, 8), dtype=np.uint8)], cpu))
    assert a.mean.shape == (64,)
    assert np.linalg.matrix_rank(a.covariance) == 64
    assert frechet_distance(a, b) * 20 < frechet_distance(a, noise)


def test_torch_fidelity_itself_can_use_it(scans: tuple[Images, Any], trained: DigitsFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(scans[0])
    parts = [images[:400], images[400:800]]
    weights = trained.state_dict()
    monkeypatch.setattr(DigitsFeatures, "__init__", _with_weights(weights, DigitsFeatures.__init__))
    library = calculate_metrics(
        input1=_Dataset(parts[0]),
        input2=_Dataset(parts[1]),
        feature_extractor="digits",
        fid=True,
        cuda=False,
        verbose=False,
        save_cpu_ram=True,
    )
    ours = [statistics(extract(trained, [part.numpy()], torch.device("cpu"))) for part in parts]
    assert frechet_distance(*ours) == pytest.approx(library["frechet_inception_distance"], rel=1e-4)


def _with_weights(weights: dict[str, torch.Tensor], init: Any) -> Any:
    def start(self: DigitsFeatures, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        self.load_state_dict(weights)

    return start


class _Dataset(torch.utils.data.Dataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]
