import numpy as np
import pytest

from edm2core.data.degenerate import checked
from edm2core.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)


def test_usual_images_pass_as_they_are() -> None:
    some_flat = IMAGES.copy()
    some_flat[:19] = 7
    for images in (IMAGES, some_flat):
        np.testing.assert_array_equal(np.concatenate(list(checked([images[:9], images[9:]], "samples"))), images)


def test_images_of_one_colour_are_refused() -> None:
    flat = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 3, 8, 8))
    with pytest.raises(InputError, match="samples are all of one colour each"):
        list(checked([flat[:9], flat[9:]], "samples"))


def test_one_image_many_times_is_refused() -> None:
    with pytest.raises(InputError, match="training images are all the same image"):
        list(checked([IMAGES[[0, 0, 0]], IMAGES[[0, 0]]], "training images"))
