from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_fidelity import feature_extractor_inceptionv3

from edm2core.errors import InputError, IntegrityError
from edm2core.metrics.extraction import INFO, INFOS, WEIGHTS, extract, load_extractor
from edm2core.metrics.extractors import inception
from edm2core.metrics.extractors.digits import DigitsFeatures

CPU = torch.device("cpu")


def random_images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    INFOS["digits"].write(tmp_path, DigitsFeatures().state_dict())
    return tmp_path


def test_the_pieces_that_images_come_in_do_not_matter(folder: Path) -> None:
    info, module = load_extractor(folder)
    images, told = random_images(150, 1, 8, 8), []
    whole = extract(module, [images], CPU)
    pieces = extract(module, [images[:10], images[10:140], images[140:]], CPU, told.append)
    assert info == INFOS["digits"]
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


@pytest.mark.slow
def test_pytorch_fids_resize_is_all_that_differs(
    blobs: Callable[..., np.ndarray], inception_weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch-fidelity's network is given what pytorch-fid's resize makes, scaled so that its own normalisation gives [-1, 1]."""
    images = blobs(3, 7)
    found = extract(inception.build_pytorch_fid(inception_weights), [images], CPU)
    plain = extract(inception.build(inception_weights), [images], CPU)

    def resize(x: torch.Tensor, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=align_corners) * 128 / 127.5

    monkeypatch.setattr(feature_extractor_inceptionv3, "interpolate_bilinear_2d_like_tensorflow1x", resize)
    np.testing.assert_allclose(found, extract(inception.build(inception_weights), [images], CPU), rtol=1e-3, atol=1e-4)
    assert np.abs(found - plain).max() > 0.01


@pytest.mark.slow
def test_logits_from_features_are_the_networks_own(blobs: Callable[..., np.ndarray], inception_weights: dict[str, torch.Tensor]) -> None:
    images = blobs(2, 8)
    module = inception.build(inception_weights).eval()
    logits = inception.class_logits(module, extract(module, [images], CPU))
    module.features_list = ["logits_unbiased"]
    torch.testing.assert_close(logits, module(torch.from_numpy(images))[0], rtol=1e-4, atol=1e-5)
