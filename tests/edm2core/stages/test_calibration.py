import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edm2core.data import digest_of, load_prepared
from edm2core.errors import InputError
from edm2core.metrics.extraction import INFOS
from edm2core.metrics.extractors.digits import DigitsFeatures
from edm2core.metrics.statistics import frechet_distance, read_reference, statistics
from edm2core.plan.manifest import Ref
from edm2core.stages import calibration, reference


@pytest.fixture
def inputs(bench: Any, digits: Ref) -> dict[str, Ref]:
    torch.manual_seed(0)
    work = bench.workspace("extractor", {}, {})
    INFOS["digits"].write(work.out, DigitsFeatures().state_dict())
    made = {"data": digits, "extractor": bench.commit(work).ref}
    return {**made, "reference": bench.run(reference.run, "reference", {"split": "train"}, made)[1].ref}


def settings(against: str, path: Path | None = None, **changes: Any) -> dict[str, Any]:
    brought = {"source": str(path or ""), "digest": digest_of(path) if path else ""}
    return {"against": against, "name": "someone's", "expected": None, "tolerance": None, **brought, **changes}


def own(bench: Any, inputs: dict[str, Ref]) -> Any:
    return read_reference(next((bench.folder / "store" / inputs["reference"].folder).glob("*/reference.json")).parent, with_features=True)


def test_the_same_statistics_are_no_distance_apart_and_others_by_what_they_differ(bench: Any, inputs: dict[str, Ref]) -> None:
    ours = own(bench, inputs).statistics
    np.savez(bench.folder / "same.npz", mu=ours.mean, sigma=ours.covariance)
    np.savez(bench.folder / "other.npz", mu=ours.mean * 1.01, sigma=ours.covariance * 0.98)
    (_, same), (_, other) = (
        bench.run(calibration.run, "calibration", settings("statistics", bench.folder / name), inputs) for name in ("same.npz", "other.npz")
    )
    assert same.metadata["mean_difference"] == same.metadata["covariance_difference"] == 0
    assert same.metadata["distance"] == pytest.approx(0, abs=1e-6)
    assert other.metadata["mean_difference"] == pytest.approx(0.01)
    assert other.metadata["covariance_difference"] == pytest.approx(0.02)
    assert other.metadata["distance"] > 1e-4 * float(ours.mean @ ours.mean)


def test_test_images_and_a_models_are_measured_as_samples_are(bench: Any, inputs: dict[str, Ref]) -> None:
    data = load_prepared(next((bench.folder / "store" / inputs["data"].folder).glob("*/dataset.json")).parent)
    found = own(bench, inputs)
    half = statistics(np.asarray(found.features[:700]))
    np.save(bench.folder / "model.npy", data.train_images[:700].transpose(0, 2, 3, 1))
    _, model = bench.run(calibration.run, "calibration", settings("images", bench.folder / "model.npy"), inputs)
    assert model.metadata["distance"] == pytest.approx(frechet_distance(half, found.statistics), rel=1e-6)
    assert model.metadata["error"] > 0
    _, test = bench.run(calibration.run, "calibration", settings("test"), inputs)
    assert test.metadata["n"] == len(data.test_images)
    assert json.loads((bench.folder / "store" / test.path("calibration.json")).read_text()).items() <= test.metadata.items()


def test_the_error_does_not_depend_on_images_lying_class_by_class(bench: Any, inputs: dict[str, Ref]) -> None:
    data = load_prepared(next((bench.folder / "store" / inputs["data"].folder).glob("*/dataset.json")).parent)
    images, labels = data.train_images[:700].transpose(0, 2, 3, 1), data.train_labels[:700]
    found = {}
    for name, order in {"mixed": np.random.default_rng(0).permutation(700), "by class": np.argsort(labels, kind="stable")}.items():
        np.save(bench.folder / f"{name}.npy", images[order])
        found[name] = bench.run(calibration.run, "calibration", settings("images", bench.folder / f"{name}.npy"), inputs)[1].metadata
    assert found["by class"]["distance"] == pytest.approx(found["mixed"]["distance"], rel=1e-6)
    assert found["by class"]["error"] == pytest.approx(found["mixed"]["error"], rel=0.6)  # ten blocks tell it to a quarter


def test_samples_in_the_store_are_a_models_images(bench: Any, inputs: dict[str, Ref]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    work = bench.workspace("sample", {}, {})
    np.save(work.out / "samples-00000.npy", images[:200])
    np.save(work.out / "samples-00001.npy", images[200:])
    work.metadata["n"] = 300
    samples = bench.commit(work).ref
    np.save(bench.folder / "same.npy", images)
    _, stored = bench.run(calibration.run, "calibration", settings("images"), {**inputs, "samples": samples})
    _, brought = bench.run(calibration.run, "calibration", settings("images", bench.folder / "same.npy"), inputs)
    assert stored.metadata["distance"] == pytest.approx(brought.metadata["distance"], rel=1e-9)


def test_images_that_changed_since_are_refused(bench: Any, inputs: dict[str, Ref]) -> None:
    np.save(bench.folder / "model.npy", np.zeros((100, 8, 8, 1), np.uint8))
    changed = settings("images", bench.folder / "model.npy", digest=f"sha256:{hashlib.sha256(b'').hexdigest()}")
    with pytest.raises(InputError, match="digest is wrong"):
        bench.run(calibration.run, "calibration", changed, inputs)
    with pytest.raises(InputError, match="someone's are all"):
        bench.run(calibration.run, "calibration", settings("images", bench.folder / "model.npy"), inputs)
