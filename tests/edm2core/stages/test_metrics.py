import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edm2core.data import load_prepared
from edm2core.diffusion.latents import drawn_labels
from edm2core.errors import InputError, IntegrityError
from edm2core.metrics.extraction import INFOS, extract
from edm2core.metrics.extractors.digits import DigitsFeatures
from edm2core.plan.manifest import Ref
from edm2core.stages import metrics, reference
from edm2core.store.results import load


@pytest.fixture
def extractor(bench: Any) -> Ref:
    return random_extractor(bench)


def random_extractor(bench: Any) -> Ref:
    work = bench.workspace("extractor", {}, {})
    INFOS["digits"].write(work.out, DigitsFeatures().state_dict())
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
    work.metadata |= {"n": len(images), "seed": 0, "draw": 0}
    ref: Ref = bench.commit(work).ref
    return ref


def images_of(bench: Any, digits: Ref) -> Any:
    return load_prepared(next((bench.folder / "store" / digits.folder).glob("*/dataset.json")).parent)


def run(bench: Any, images: Any, references: Ref, extractor: Ref, *names: str) -> Any:
    data = load(bench.store, references).inputs["data"]
    inputs = {"samples": samples(bench, images), "data": Ref.parse(data), "reference": references, "extractor": extractor}
    return bench.run(metrics.run, "metrics", {"metrics": names or ["fd"]}, inputs)[1]


def test_the_training_images_are_at_distance_0_from_themselves_and_noisier_ones_are_further(
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
    facts = {"n", "n_reference", "extractor", "layer", "images_sha256", "extractor_sha256"}
    assert set(written) == {"values", "standard_errors", "left_out"} | facts
    assert len(written["left_out"]["fd_digits"]) == 10
    assert 0 < written["standard_errors"]["fd_digits"] < values[1]


def test_classes_are_those_that_the_samples_were_drawn_of(bench: Any, digits: Ref, references: Ref, extractor: Ref) -> None:
    data = images_of(bench, digits)
    labels = drawn_labels(0, 0, range(1400), 10).numpy()
    of_class = [np.flatnonzero(data.train_labels == label) for label in range(10)]
    drawn = np.stack([data.train_images[of_class[label][index % len(of_class[label])]] for index, label in enumerate(labels)])
    manifest = run(bench, drawn, references, extractor, "fd_by_class", "nn_test", "nn_test_fake")
    wrong = run(bench, drawn[::-1].copy(), references, extractor, "fd_by_class")
    own, other = (found.metadata["values"]["fd_by_class_digits"] for found in (manifest, wrong))
    assert 0 < 10 * own < other
    assert manifest.metadata["by_class"] == pytest.approx([own] * 10, rel=5)
    assert np.mean(manifest.metadata["by_class"]) == pytest.approx(own)
    assert set(manifest.metadata["intervals"]) == {"nn_test_digits", "nn_test_fake_digits"}
    assert manifest.metadata["values"]["nn_test_fake_digits"] < 0.45  # copies lie nearest to what they are copies of


def test_of_the_training_images_themselves_every_share_is_one(bench: Any, digits: Ref, references: Ref, extractor: Ref) -> None:
    asked = ["precision", "recall", "density", "coverage"]
    manifest = run(bench, images_of(bench, digits).train_images[:], references, extractor, *asked)
    assert manifest.metadata["values"] == {f"{name}_digits": 1.0 for name in asked}


def test_one_pass_gives_every_metric_of_the_extractor(
    bench: Any, digits: Ref, references: Ref, extractor: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    monkeypatch.setattr(metrics, "extract", lambda *given: passes.append(1) or extract(*given))
    monkeypatch.setattr("edm2core.metrics.kernel_distance.SUBSET", 300)
    asked = ["fd", "kid", "precision", "recall", "density", "coverage", "memorisation"]
    manifest = run(bench, images_of(bench, digits).test_images[:], references, extractor, *asked)
    assert list(manifest.metadata["values"]) == [f"{name}_digits" for name in asked]
    assert all(np.isfinite(value) for value in manifest.metadata["values"].values())
    assert len(passes) == 1


def test_copies_of_training_images_are_found_and_shown_beside_them(bench: Any, digits: Ref, references: Ref, extractor: Ref) -> None:
    data = images_of(bench, digits)
    images = np.concatenate([data.test_images[:90], data.train_images[[5, 700]]])
    manifest = run(bench, images, references, extractor, "memorisation")
    neighbours = manifest.metadata["neighbours"]
    assert {(90, 5), (91, 700)} <= set(zip(neighbours["samples"], neighbours["training"], strict=True))
    assert manifest.metadata["values"]["memorisation_digits"] >= 2 / 92
    picture = np.asarray(Image.open(bench.folder / "store" / manifest.path("neighbours.png")))
    row = picture.shape[0] // 4  # two rows of samples, each over a row of training images
    np.testing.assert_array_equal(picture[:row, : 2 * picture.shape[1] // 8], picture[row : 2 * row, : 2 * picture.shape[1] // 8])


def test_samples_of_one_colour_are_refused(bench: Any, digits: Ref, references: Ref, extractor: Ref) -> None:
    with pytest.raises(InputError, match="all the same image"):
        run(bench, np.full((200, 1, 8, 8), 7, np.uint8), references, extractor)


def test_too_few_samples_are_refused(bench: Any, digits: Ref, references: Ref, extractor: Ref) -> None:
    with pytest.raises(InputError, match="64 images are too few"):
        run(bench, images_of(bench, digits).test_images[:64], references, extractor)


def test_a_reference_of_another_extractor_is_refused(bench: Any, digits: Ref, references: Ref) -> None:
    with pytest.raises(IntegrityError, match="another feature extractor"):
        run(bench, images_of(bench, digits).test_images[:], references, random_extractor(bench))
