import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare
from edm2core.data.images import decode
from edm2core.errors import InputError


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def colour(value: int, height: int = 8, width: int = 8) -> bytes:
    return encoded(np.full((height, width, 3), value, np.uint8))


def write(folder: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def prepared(source: Path, resolution: int = 8, test_share: float = 0.2) -> Any:
    out = source.with_name("out-" + source.name)
    settings = DataSettings(format="images", source=str(source), resolution=resolution, test_share=test_share)
    prepare(settings, source, out)
    return load_prepared(out)


TWO_SPLITS = {
    "train/cat/2.png": colour(2),
    "train/cat/1.png": colour(1),
    "train/ape/deep/3.png": colour(3),
    "test/cat/4.png": colour(4),
    "test/ape/5.png": colour(5),
}


@pytest.mark.parametrize("prefix", ["", "pack/", "pack/more/"])
@pytest.mark.parametrize("make", [write, zipped])
@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_the_splits(tmp_path: Path, make: Any, prefix: str, test: str) -> None:
    members = {prefix + name.replace("test/", f"{test}/"): data for name, data in TWO_SPLITS.items()}
    data = prepared(make(tmp_path / "data", members))
    assert data.classes == ("ape", "cat")
    assert data.train_labels.tolist() == [0, 1, 1]
    assert data.train_images[:, 0, 0, 0].tolist() == [3, 1, 2]
    assert data.test_images[:, 0, 0, 0].tolist() == [5, 4]
    assert data.info["counts"] == {"train": 3, "test": 2, "per_class": {"train": [1, 2], "test": [1, 1]}}


def test_class_folders_alone_are_split_by_content(tmp_path: Path) -> None:
    members = {f"{name}/{n}.png": colour(n + 100 * (name == "b")) for name in "ab" for n in range(10)}
    data = prepared(write(tmp_path / "folder", members), test_share=0.3)
    assert data.info["counts"]["per_class"] == {"train": [7, 7], "test": [3, 3]}
    values = np.concatenate([data.train_images[:, 0, 0, 0], data.test_images[:, 0, 0, 0]])
    assert sorted(values.tolist()) == [*range(10), *range(100, 110)]
    renamed = {name.replace(".png", "-renamed.png").replace("/", f"/{9 - int(name[2])}"): content for name, content in members.items()}
    again = prepared(zipped(tmp_path / "archive.zip", renamed), test_share=0.3)
    assert sorted(again.test_images[:, 0, 0, 0].tolist()) == sorted(data.test_images[:, 0, 0, 0].tolist())


def test_both_test_and_val_says_which_was_left_out(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "data", TWO_SPLITS | {"val/cat/9.png": colour(9)}))
    assert data.info["counts"]["test"] == 2
    assert "val/ was left out" in data.info["warning"]


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "data", TWO_SPLITS | {"train/cat/notes.txt": b"x"}))
    assert "Without an image's suffix and left out: 1, such as 'train/cat/notes.txt'" in data.info["warning"]


def without(*names: str) -> dict[str, bytes]:
    return {name: data for name, data in TWO_SPLITS.items() if name not in names}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (without("test/ape/5.png"), r"'ape' is in train/ and missing here(.|\n)*test/ape"),
        (without("train/ape/deep/3.png"), r"'ape' is in test/ and missing here(.|\n)*train/ape"),
        (TWO_SPLITS | {"extra/x.png": colour(0)}, r"neither train/(.|\n)*extra"),
        (TWO_SPLITS | {"train/loose.png": colour(0)}, r"in no class folder(.|\n)*loose\.png"),
        ({"loose.png": colour(0)}, r"in no class folder(.|\n)*loose\.png"),
        ({"train/a/x.png": colour(0), "valid/a/x.png": colour(0)}, r"no test/ or val/"),
        ({"readme.txt": b"nothing"}, "holds no images"),
        ({}, "holds no images"),
        ({"a/1.png": colour(0)}, "Class 'a' has 1 image"),
    ],
)
def test_a_layout_that_is_wrong_names_the_place(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=message):
        prepared(write(tmp_path / "data", members))
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("empty", ["train/bee", "test/bee"])
def test_an_empty_class_folder_is_named(tmp_path: Path, empty: str) -> None:
    (write(tmp_path / "data", TWO_SPLITS) / empty).mkdir()
    with pytest.raises(InputError, match=rf"holds no image(.|\n)*{empty}"):
        prepared(tmp_path / "data")


def test_an_empty_class_folder_in_a_zip_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no image(.|\n)*train/bee"):
        prepared(zipped(tmp_path / "data.zip", TWO_SPLITS | {"train/bee/": b""}))


@pytest.mark.parametrize("make", [write, zipped])
def test_a_truncated_image_is_named_and_nothing_remains(tmp_path: Path, make: Any) -> None:
    noise = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")
    source = make(tmp_path / "data", TWO_SPLITS | {"test/cat/broken.jpg": noise[: len(noise) // 2]})
    with pytest.raises(InputError, match=r"truncated(.|\n)*test/cat/broken\.jpg"):
        prepared(source)
    assert os.listdir(tmp_path) == ["data"]


def test_grey_palette_and_transparent_images_become_rgb() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(decode(encoded(grey), None, "x"), np.stack([grey] * 3))
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    assert decode(palette.getvalue(), None, "x").shape == (3, 8, 8)
    assert np.array_equal(decode(encoded(np.stack([grey, grey, grey, 255 - grey], axis=-1)), None, "x"), np.stack([grey] * 3))


def test_the_centre_is_cropped_and_the_orientation_respected() -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6, 0] = np.arange(16).reshape(4, 4)
    assert np.array_equal(decode(encoded(pixels), 4, "x")[0], np.arange(16).reshape(4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = decode(encoded(pixels, exif=exif), 4, "x")[0]
    assert np.array_equal(turned, np.rot90(np.arange(16).reshape(4, 4), -1))


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decode(encoded(stripes), 8, "x").astype(int) - 127).max() <= 8


def absurd_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize("side", [8001, 100_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_absurd_size_is_refused_before_decoding(side: int) -> None:
    with pytest.raises(InputError, match=r"(limit|absurd)(.|\n)*bomb\.png"):
        decode(absurd_png(side), 8, "bomb.png")


def test_pixels_deeper_than_8_bits_are_refused() -> None:
    with pytest.raises(InputError, match="deeper than 8 bits"):
        decode(encoded(np.full((4, 4), 40_000, np.uint16)), None, "deep.png")


def test_formats_that_run_programs_are_not_tried() -> None:
    with pytest.raises(InputError, match=r"not an image of a known kind(.|\n)*page\.png"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", 8, "page.png")
