from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edm2core.errors import InputError, IntegrityError
from edm2core.metrics.digits import DigitsFeatures
from edm2core.metrics.extractors import DIGITS, INFO, WEIGHTS, extract, load_extractor

CPU = torch.device("cpu")


def random_images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    DIGITS.write(tmp_path, DigitsFeatures().state_dict())
    return tmp_path


def test_the_pieces_that_images_come_in_do_not_matter(folder: Path) -> None:
    info, module = load_extractor(folder)
    images, told = random_images(150, 1, 8, 8), []
    whole = extract(module, [images], CPU)
    pieces = extract(module, [images[:10], images[10:140], images[140:]], CPU, told.append)
    assert info == DIGITS
    assert whole.shape == (150, 64)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(pieces, whole, rtol=1e-5, atol=1e-6)
    assert told[-1] == 150


def test_images_of_another_shape_are_refused(folder: Path) -> None:
    _, module = load_extractor(folder)
    with pytest.raises(InputError, match="do not suit the digits features"):
        extract(module, [random_images(3, 3, 32, 32)], CPU)
    with pytest.raises(InputError, match="no images"):
        extract(module, [], CPU)


@pytest.mark.parametrize("file", [INFO, WEIGHTS])
def test_a_damaged_extractor_is_named(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"{]")
    with pytest.raises(IntegrityError, match="no feature extractor"):
        load_extractor(folder)
