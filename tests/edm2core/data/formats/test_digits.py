from pathlib import Path

import numpy as np
import pytest

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.errors import InputError


def test_digits_are_all_there_and_split_by_class(tmp_path: Path) -> None:
    info = prepare_data(DataSettings(format="digits", test_share=0.2), None, tmp_path / "out")
    data = load_prepared(tmp_path / "out")
    assert info["counts"]["train"] + info["counts"]["test"] == 1797
    assert data.train_images.shape[1:] == (1, 8, 8)
    assert data.train_images.max() == 255
    for train, test in zip(info["counts"]["per_class"]["train"], info["counts"]["per_class"]["test"], strict=True):
        assert test == round(0.2 * (train + test))
    assert len({image.tobytes() for image in data.train_images} & {image.tobytes() for image in data.test_images}) == 0


def test_standardised_digits_have_mean_0_and_standard_deviation_one_half(tmp_path: Path) -> None:
    info = prepare_data(DataSettings(format="digits", standardize=True), None, tmp_path / "out")
    data = load_prepared(tmp_path / "out")
    values = data.train_images / 255 * data.pixel_scale.scale + data.pixel_scale.offset
    assert abs(values.mean()) < 1e-12
    assert values.std() == pytest.approx(0.5, abs=1e-12)
    assert info["network_std"] == pytest.approx(0.5)
    assert info["warning"] is None


def test_plain_digits_are_warned_about(tmp_path: Path) -> None:
    info = prepare_data(DataSettings(format="digits"), None, tmp_path / "out")
    assert info["affine"] == {"scale": 2.0, "offset": -1.0}
    assert 2 * info["mean"][0] - 1 == pytest.approx(-0.39, abs=0.005)
    assert info["network_std"] == pytest.approx(0.75, abs=0.005)
    assert "standard deviation" in info["warning"]


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        prepare_data(DataSettings(format="digits"), None, tmp_path / name)
    first, second = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab")
    assert "train_images.npy" in first
    assert first == second


def test_no_test_share_leaves_an_empty_test_split(tmp_path: Path) -> None:
    prepare_data(DataSettings(format="digits", test_share=0.0), None, tmp_path / "out")
    data = load_prepared(tmp_path / "out")
    assert np.asarray(data.test_images).shape == (0, 1, 8, 8)


def test_a_resolution_that_digits_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images of side 8"):
        prepare_data(DataSettings(format="digits", resolution=16), None, tmp_path / "out")
    assert not list(tmp_path.iterdir())
