from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edm2core.data.loose import loose_images
from edm2core.errors import InputError

SHAPE = (3, 6, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


def read(path: Path, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    count, blocks = loose_images(path, shape)
    found = np.concatenate(list(blocks))
    assert count == len(found)
    return found


def test_arrays_with_channels_first_or_last_alone_or_beside_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "first.npy", IMAGES)
    np.save(tmp_path / "last.npy", IMAGES.transpose(0, 2, 3, 1))
    np.savez(tmp_path / "both.npz", arr_0=IMAGES.transpose(0, 2, 3, 1), arr_1=np.arange(5))
    for name in ("first.npy", "last.npy", "both.npz"):
        np.testing.assert_array_equal(read(tmp_path / name), IMAGES)


def test_files_in_a_folder_by_their_names_also_in_folders_below(tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        folder = tmp_path / f"{number // 2:06d}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:06d}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    np.testing.assert_array_equal(read(tmp_path), IMAGES)


def test_grey_data_have_one_channel(tmp_path: Path) -> None:
    Image.fromarray(IMAGES[0, 0]).save(tmp_path / "0.png")
    np.testing.assert_array_equal(read(tmp_path, (1, 6, 4)), IMAGES[:1, :1])
    Image.new("RGB", (4, 6), (255, 0, 0)).save(tmp_path / "0.png")
    assert (read(tmp_path, (1, 6, 4)) == 76).all()  # its luma, not its red


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (IMAGES.astype(np.float32), "float32"),
        (IMAGES[:, :, :5], r"\[5, 3, 5, 4\]"),
        (IMAGES[0], "uint8 images of shape"),
        (np.array([{}], dtype=object), "cannot be read as an array"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=words) as raised:
        loose_images(tmp_path / "a.npy", SHAPE)
    assert raised.value.do_next


def test_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        loose_images(tmp_path, SHAPE)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(InputError, match="cannot be read as an array"):
        loose_images(tmp_path / "a.npz", SHAPE)
    np.savez(tmp_path / "two.npz", a=IMAGES, b=IMAGES)
    with pytest.raises(InputError, match="It holds"):
        loose_images(tmp_path / "two.npz", SHAPE)


def test_an_array_that_expands_beyond_measure_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((300_000, *SHAPE), np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was expanded"))
    with pytest.raises(InputError, match="would expand"):
        loose_images(tmp_path / "bomb.npz", SHAPE)
