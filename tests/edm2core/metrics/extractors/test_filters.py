"""Features for small sets: their distance is larger the worse the images are."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

from edm2core.metrics.extraction import INFOS, extract, load_extractor
from edm2core.metrics.extractors.filters import FilterFeatures, fit_filters
from edm2core.metrics.names import Metric, metric
from edm2core.metrics.neighbours import memorised
from edm2core.metrics.statistics import frechet_distance, statistics
from edm2core.registry import EXTRACTORS

Images = NDArray[np.uint8]
N, CPU = 90, torch.device("cpu")


def photos() -> Images:
    """Parts of scikit-learn's two photographs, 180 of 3 x 32 x 32."""
    generator, found = np.random.default_rng(0), []
    for number in range(2 * N):
        photo = PHOTOS[number % 2]
        y, x = (int(generator.integers(0, side - 96)) for side in photo.shape[:2])
        found.append(np.asarray(Image.fromarray(photo[y : y + 96, x : x + 96]).resize((32, 32), Image.Resampling.LANCZOS)))
    return np.stack(found).transpose(0, 3, 1, 2)


PHOTOS = load_sample_images().images
DIGITS = np.rint(load_digits().images[: 2 * N] * 255 / 16).astype(np.uint8)[:, None]
SETS: dict[str, Callable[[], Images]] = {"photos": photos, "digits": lambda: DIGITS}


def each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    changed = [np.asarray(change(Image.fromarray(image.transpose(1, 2, 0).squeeze()))) for image in images]
    return np.stack(changed).reshape(len(images), *images.shape[2:], images.shape[1]).transpose(0, 3, 1, 2)


def noise(images: Images, amount: float) -> Images:
    return np.clip(images + np.random.default_rng(1).normal(0, 40 * amount, images.shape), 0, 255).astype(np.uint8)


def blur(images: Images, amount: float) -> Images:
    return each(images, lambda image: image.filter(ImageFilter.GaussianBlur(amount * 2)))


def cast(images: Images, amount: float) -> Images:
    return np.clip(images + amount * 60 * np.array([1, -0.5, 0])[: images.shape[1], None, None], 0, 255).astype(np.uint8)


def faint(images: Images, amount: float) -> Images:
    return (128 + (images.astype(float) - 128) * (1 - 0.7 * amount)).astype(np.uint8)


def alike(images: Images, amount: float) -> Images:
    return images[np.arange(len(images)) % round(6 / amount)]


def compressed(images: Images, amount: float) -> Images:
    def jpeg(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=round(90 - 82 * amount))
        return Image.open(file)

    return each(images, jpeg)


def shuffled(images: Images, amount: float) -> Images:
    """Parts of each image in another place, as many as the amount says."""
    generator, cells, changed = np.random.default_rng(2), 4, images.copy()
    side = images.shape[-1] // cells
    for image, source in zip(changed, images, strict=True):
        moved = generator.permutation(cells**2)[: round(amount * cells**2)]
        for place, origin in zip(moved, np.roll(moved, 1), strict=True):
            (a, b), (c, d) = divmod(int(place), cells), divmod(int(origin), cells)
            image[:, a * side : (a + 1) * side, b * side : (b + 1) * side] = source[:, c * side : (c + 1) * side, d * side : (d + 1) * side]
    return changed


@pytest.mark.parametrize("name", SETS)
def test_worse_images_are_farther_from_small_sets(name: str) -> None:
    images = SETS[name]()
    training, others = images[:N], images[N:]
    module = fit_filters(training)
    reference = statistics(extract(module, [training], CPU))

    def distance(changed: Images) -> float:
        return frechet_distance(statistics(extract(module, [changed], CPU)), reference)

    clean = distance(others)
    for worsen in (noise, blur, cast, faint, alike, compressed, shuffled):
        mild, strong = distance(worsen(others, 0.4)), distance(worsen(others, 1.0))
        assert clean < mild < strong, worsen.__name__
        assert strong > 2 * clean, worsen.__name__


def test_features_have_mean_0_and_deviation_1_over_the_training_images_and_no_other_scale() -> None:
    features = extract(fit_filters(photos()), [photos()], CPU)
    assert features.shape == (2 * N, FilterFeatures.DIMENSIONS) == (2 * N, EXTRACTORS["filters"].dimensions)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-3)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8, 33])
def test_any_size_and_grey_images_have_finite_features(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 1, side, side), dtype=np.uint8)
    assert np.isfinite(extract(fit_filters(images), [images], CPU)).all()
    grey = extract(fit_filters(images), [np.zeros_like(images)], CPU)
    assert np.isfinite(grey).all()


def test_it_is_written_and_read_as_others_are(tmp_path: Path) -> None:
    images = photos()
    module = fit_filters(images)
    INFOS["filters"].write(tmp_path, module.state_dict())
    info, read = load_extractor(tmp_path)
    assert info == INFOS["filters"]
    np.testing.assert_array_equal(extract(read, [images], CPU), extract(module, [images], CPU))


def test_copies_of_training_images_are_found_among_others() -> None:
    module = fit_filters(DIGITS[:N])
    training, others, copies = (torch.tensor(extract(module, [part], CPU)) for part in (DIGITS[:N], DIGITS[N:], DIGITS[:30]))
    assert memorised(copies, training).share == 1
    assert memorised(others, training).share < 0.05


def test_their_distance_is_never_called_fid() -> None:
    assert metric("fd_filters", "images") == Metric("fd", "filters")
    assert Metric("fd", "filters").label == "FD (filter features)"
    assert Metric("fd", "filters").least_images == 55
    with pytest.raises(ValueError, match="defined in Inception's features"):
        metric("fid_filters", "images")
