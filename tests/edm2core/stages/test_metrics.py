from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edm2core.data import load_prepared
from edm2core.errors import InputError, IntegrityError
from edm2core.manifest import Ref
from edm2core.metrics.digits import DigitsFeatures
from edm2core.metrics.extractors import DIGITS
from edm2core.stages import metrics, reference


@pytest.fixture
def extractor(bench: Any) -> Ref:
    return random_extractor(bench)


def random_extractor(bench: Any) -> Ref:
    work = bench.workspace("extractor", {}, {})
    DIGITS.write(work.out, DigitsFeatures().state_dict())
    ref: Ref = bench.commit(work).ref
    return ref


@pytest.fixture
def references(bench: Any, digits: Ref, extractor: Ref) -> Ref:
    _, manifest = bench.run(reference.run, "reference", {"split": "train"}, {"data": digits, "extractor": extractor})
    assert manifest.metadata["n"] == 1438
    ref: Ref = manifest.ref
    return ref


def samples(bench: Any, images: Any) -> Ref:
    """A sample result that holds these images in two shards."""
    work = bench.workspace("sample", {}, {})
    for number, part in enumerate(np.array_split(images, 2)):
        np.save(work.out / f"samples-{number:05d}.npy", part)
    (work.out / "grid.png").write_bytes(b"")
    work.metadata["n"] = len(images)
    ref: Ref = bench.commit(work).ref
    return ref


def images_of(bench: Any, digits: Ref) -> Any:
    return load_prepared(next((bench.folder / "store" / digits.folder).glob("*/dataset.json")).parent)


def run(bench: Any, images: Any, references: Ref, extractor: Ref, name: str = "fd") -> Any:
    inputs = {"samples": samples(bench, images), "reference": references, "extractor": extractor}
    return bench.run(metrics.run, "metrics", {"metrics": [name]}, inputs)[1]


def test_the_training_images_are_at_no_distance_from_themselves_and_worse_ones_are_further(
    bench: Any, digits: Ref, references: Ref, extractor: Ref
) -> None:
    data = images_of(bench, digits)
    noisy = (data.train_images[:] + np.random.default_rng(0).integers(0, 100, data.train_images.shape)).clip(0, 255).astype(np.uint8)
    same, test, noise = (run(bench, images, references, extractor) for images in (data.train_images[:], data.test_images[:], noisy))
    values = [manifest.metadata["values"]["fd_digits"] for manifest in (same, test, noise)]
    assert abs(values[0]) < 1e-6 * values[2]
    assert 0 < values[1] < values[2]
    assert (test.metadata["n"], test.metadata["n_reference"], test.metadata["extractor"]) == (359, 1438, "digits")
    written = json.loads((bench.folder / "store" / test.path("metrics.json")).read_text())
    assert written["values"] == test.metadata["values"]
    assert set(written) == {"values", "n", "n_reference", "extractor", "layer", "images_sha256", "extractor_sha256"}


def test_too_few_samples_are_refused(bench: Any, digits: Ref, references: Ref, extractor: Ref) -> None:
    with pytest.raises(InputError, match="64 images are too few"):
        run(bench, images_of(bench, digits).test_images[:64], references, extractor)


def test_fid_is_refused_in_other_features_before_any_work(
    bench: Any, digits: Ref, references: Ref, extractor: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "extract", pytest.fail)
    with pytest.raises(InputError, match="FID is a distance in Inception's features"):
        run(bench, images_of(bench, digits).test_images[:], references, extractor, "fid")


def test_a_reference_of_another_extractor_is_refused(bench: Any, digits: Ref, references: Ref) -> None:
    with pytest.raises(IntegrityError, match="another feature extractor"):
        run(bench, images_of(bench, digits).test_images[:], references, random_extractor(bench))
