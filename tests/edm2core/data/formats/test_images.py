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
from PIL.PngImagePlugin import PngInfo

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.data.alpha import alpha_of
from edm2core.data.files import open_files
from edm2core.data.formats.folders import survey
from edm2core.data.formats.images import decode
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
    prepare_data(settings, source, out)
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
        (TWO_SPLITS | {"extra/x.png": colour(0)}, r"no split, and train/ beside(.|\n)*extra"),
        (TWO_SPLITS | {"train/loose.png": colour(0)}, r"in no class folder(.|\n)*loose\.png"),
        ({"loose.png": colour(0)}, r"in no class folder(.|\n)*loose\.png"),
        ({"train/a/x.png": colour(0), "other/a/x.png": colour(0)}, r"no test/ or val/"),
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


def test_grey_and_palette_images_become_rgb() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(decode(encoded(grey), None, "x"), np.stack([grey] * 3))
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    assert decode(palette.getvalue(), None, "x").shape == (3, 8, 8)


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


def transparent(hidden: tuple[int, int, int], **options: Any) -> Image.Image:
    """A red disc of 8 x 8 on transparency, under which another colour stands that nobody sees."""
    image = Image.new("RGBA", (8, 8), (*hidden, 0))
    image.paste((200, 0, 0, 255), (2, 2, 6, 6))
    return image


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("hidden", [(0, 0, 0), (9, 200, 77), (255, 255, 255)])
def test_what_stands_under_full_transparency_is_not_seen(hidden: tuple[int, int, int]) -> None:
    white = decode(saved(transparent(hidden)), None, "x", (255, 255, 255))
    assert (white[:, 0, 0].tolist(), white[:, 3, 3].tolist()) == ([255, 255, 255], [200, 0, 0])
    assert decode(saved(transparent(hidden)), None, "x", (1, 2, 3))[:, 7, 7].tolist() == [1, 2, 3]
    assert decode(saved(transparent(hidden)), 4, "x", (255, 255, 255))[2].min() < 60  # composed before it is resized


def test_half_transparency_is_mixed() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert decode(saved(image), None, "x", (255, 255, 255))[:, 0, 0].tolist() == [127, 127, 127]


def with_transparency(form: str) -> bytes:
    colours = Image.new("P", (8, 8), 1)
    colours.putpalette([0, 0, 0, 200, 0, 0])
    colours.putpixel((0, 0), 0)
    match form:
        case "palette":
            return saved(colours, transparency=0)
        case "key":
            return saved(colours.convert("RGB"), transparency=(0, 0, 0))
        case "grey":
            return saved(transparent((0, 0, 0)).convert("LA"))
        case "GIF":
            return saved(colours, "GIF", transparency=0)
        case "late":  # the tRNS chunk stands behind a profile that is longer than what is read first
            return saved(colours, transparency=0, icc_profile=os.urandom(20_000))
        case "WEBP" | "TIFF":
            return saved(transparent((0, 0, 0)), form, **({"lossless": True} if form == "WEBP" else {}))
    return saved(transparent((0, 0, 0)), "WEBP", quality=80)


FORMS = ["palette", "key", "grey", "GIF", "late", "WEBP", "TIFF", "lossy"]


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_transparency_is_known_by_the_header_and_composed(tmp_path: Path, form: str) -> None:
    data = with_transparency(form)
    assert decode(data, None, "x", (255, 255, 255))[:, 0, 0].tolist() == [255, 255, 255]
    with open_files(write(tmp_path, {"a/1.png": data})) as files:
        assert alpha_of(files, "a/1.png")
    with pytest.raises(InputError, match="transparent in part"):
        decode(data, None, "x")


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("RGB", "WEBP"),
        ("RGB", "TIFF"),
        ("P", "GIF"),
        ("RGB", "PPM"),
    ],
)
def test_opaque_images_have_no_alpha(tmp_path: Path, mode: str, form: str) -> None:
    with open_files(write(tmp_path, {"a/1.png": saved(Image.new(mode, (8, 8), 7), form)})) as files:
        assert not alpha_of(files, "a/1.png")


@pytest.mark.parametrize("cut", [1, 8, 20, 26, 30])
def test_a_damaged_header_has_no_alpha(tmp_path: Path, cut: int) -> None:
    for number, form in enumerate(FORMS):
        write(tmp_path, {f"{number}.png": with_transparency(form)[:cut]})
    with open_files(tmp_path) as files:
        assert not any(alpha_of(files, name) for name in files.sizes if cut < 26)
        assert [alpha_of(files, name) in (True, False) for name in files.sizes]


def test_how_many_images_had_alpha_and_their_colour_is_said(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "data", TWO_SPLITS | {"train/cat/9.png": saved(transparent((0, 0, 0)))}))
    assert "1 of 6 images have an alpha channel: transparent pixels stand on RGB 255, 255, 255." in data.info["warning"]
    assert data.train_images[:, 0, 0, 0].tolist() == [3, 1, 2, 255]


def with_metadata(size: int) -> bytes:
    info = PngInfo()
    info.add_text("Comment", "x" * size, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "y" * size, zip=True)
    return saved(Image.new("RGB", (8, 8), (1, 2, 3)), pnginfo=info, icc_profile=bytes(size))


@pytest.mark.parametrize("size", [10, 3 * 2**20])
def test_metadata_of_any_size_do_not_spoil_a_png(size: int) -> None:
    assert decode(with_metadata(size), None, "x")[:, 0, 0].tolist() == [1, 2, 3]


def test_a_damaged_png_with_much_metadata_is_called_damaged() -> None:
    with pytest.raises(InputError, match="truncated or damaged"):
        decode(with_metadata(3 * 2**20)[:-30], None, "x")


def test_images_can_be_read_as_grey(tmp_path: Path) -> None:
    image = saved(Image.new("RGB", (8, 8), (255, 0, 0)))
    assert decode(image, 8, "x", channels=1).tolist() == np.full((1, 8, 8), 76).tolist()
    source = write(tmp_path / "data", dict.fromkeys(TWO_SPLITS, image))
    settings = DataSettings(format="images", source=str(source), resolution=8, channels=1)
    assert prepare_data(settings, source, tmp_path / "out")["shape"] == [1, 8, 8]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is an empty file, of zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIF"),
    ],
)
def test_what_stands_in_place_of_an_image_is_called_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        decode(data, 8, "x.png")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("training", "validation"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("trainingData", "testingData"),
        ("train", "eval"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("x_train", "x_val"),
    ],
)
@pytest.mark.parametrize("make", [write, zipped])
def test_split_folders_are_known_in_any_case_and_by_their_synonyms(tmp_path: Path, make: Any, train: str, test: str) -> None:
    members = {name.replace("train/", f"{train}/").replace("test/", f"{test}/"): data for name, data in TWO_SPLITS.items()}
    data = prepared(make(tmp_path / "data", members))
    assert (data.classes, data.info["counts"]["train"], data.info["counts"]["test"]) == (("ape", "cat"), 3, 2)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("val", "test"), "none is for training"),
        (("Train", "train"), "both say that they are the split 'train'"),
        (("train", "test", "testing"), "both say that they are the split 'test'"),
        (("trainA", "trainB", "testA", "testB"), "look like splits of several kinds"),
        (("seg_train", "seg_test", "seg_pred"), "holds images and is no split"),
        (("train", "query"), "no test/ or val/ stands beside it"),
    ],
)
def test_folders_of_splits_are_never_taken_for_classes(tmp_path: Path, folders: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepared(write(tmp_path / "data", {f"{folder}/{name}/{n}.png": colour(n) for folder in folders for name in "ab" for n in range(4)}))


@pytest.mark.parametrize("folders", [("Train", "Test"), ("train",), ("training", "val")])
def test_splits_without_class_folders_are_told_where_images_without_classes_go(tmp_path: Path, folders: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="in no class folder") as caught:
        prepared(write(tmp_path / "data", {f"{folder}/{n}.png": colour(n) for folder in folders for n in range(4)}))
    assert "network.classes: 0" in caught.value.do_next


def test_classes_called_train_and_test_are_told_that_these_are_splits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in no class folder of the split train/") as caught:
        prepared(write(tmp_path / "data", {f"{name}/{n}.png": colour(n) for name in ("cat", "test", "train") for n in range(4)}))
    assert "If train/ is a class and no split, rename it." in caught.value.do_next


@pytest.mark.parametrize("other", ["Cat", "cafe\u0301"])
def test_classes_that_differ_in_case_or_accents_alone_are_named_side_by_side(tmp_path: Path, other: str) -> None:
    name = {"Cat": "cat", "cafe\u0301": "caf\u00e9"}[other]
    with pytest.raises(InputError, match=f"'{name}' differs in case or in how its accents are encoded"):
        prepared(write(tmp_path / "data", {f"train/{name}/1.png": colour(1), f"test/{other}/1.png": colour(2)}))


def test_splits_inside_of_classes_are_read_together_and_this_is_said(tmp_path: Path) -> None:
    members = {f"{name}/{split}/{n}.png": colour(n) for name in "ab" for split in ("train", "test") for n in range(2)}
    data = prepared(write(tmp_path / "data", members))
    assert data.classes == ("a", "b")
    assert "such as a/test/: they are read together" in data.info["warning"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "data", {f"{name}/{n}.png": colour(n) for name in ("bus", "car", "train") for n in range(4)}))
    assert data.classes == ("bus", "car", "train")


@pytest.mark.parametrize("unlabelled", ["test/1.png", "test/images/1.png", "Test/unknown/1.png"])
def test_an_unlabelled_test_beside_a_labelled_val_gives_way_and_this_is_said(tmp_path: Path, unlabelled: str) -> None:
    members = {name.replace("test/", "val/"): data for name, data in TWO_SPLITS.items()}
    data = prepared(write(tmp_path / "data", members | {unlabelled: colour(77)}))
    assert data.test_images[:, 0, 0, 0].tolist() == [5, 4]
    assert f"{unlabelled.split('/')[0]}/ has no class folders and was left out: val/ is the test split" in data.info["warning"]


def test_a_jfif_is_a_jpeg(tmp_path: Path) -> None:
    photo = saved(Image.new("RGB", (8, 8), (60, 60, 60)), "JPEG")
    data = prepared(write(tmp_path / "data", TWO_SPLITS | {"train/cat/3.jfif": photo, "train/cat/4.JPE": photo}))
    assert data.train_images[:, 0, 0, 0].tolist() == [3, 1, 2, 60, 60]


def test_images_of_kinds_that_are_not_read_are_counted_apart(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "data", TWO_SPLITS | {"train/cat/3.heic": b"x", "@eaDir/1.png": b"x"}))
    assert "convert them to PNG or JPEG): 1, such as 'train/cat/3.heic'" in data.info["warning"]
    assert "Left behind by systems and left out: 1, such as '@eaDir/1.png'" in data.info["warning"]


def test_class_names_that_are_not_utf8_are_shown_by_their_bytes(tmp_path: Path) -> None:
    names = {b"caf\xe9": 1, b"th\xe9": 2}
    for folder, value in names.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        place = os.path.join(os.fsencode(tmp_path / "data"), folder)
        os.mkdir(place)
        for number in range(4):
            with open(os.path.join(place, b"%d.png" % number), "wb") as file:
                file.write(colour(value + 10 * number))
    data = prepared(tmp_path / "data")
    assert data.classes == ("caf\\xe9", "th\\xe9")
    with open(os.path.join(os.fsencode(tmp_path / "data"), b"caf\xe9", b"\xff.png"), "wb") as file:
        file.write(b"no image")
    with pytest.raises(InputError) as caught:
        prepare_data(DataSettings(format="images", source="x", resolution=8), tmp_path / "data", tmp_path / "again")
    assert "caf\\xe9" in str(caught.value).encode().decode()


def test_what_the_first_version_read_otherwise_is_refused_where_the_plan_does_not_know(tmp_path: Path) -> None:
    source = write(tmp_path / "data", TWO_SPLITS | {"train/cat/9.png": saved(transparent((0, 0, 0)))})
    settings = DataSettings(format="images", source=str(source), resolution=8)
    with pytest.raises(InputError, match="read otherwise than when this was planned"):
        prepare_data(settings, source, tmp_path / "out", revised=False)
    assert not (tmp_path / "out").exists()


REVISED = {
    "alpha": TWO_SPLITS | {"test/ape/9.png": saved(transparent((0, 0, 0)))},
    "splits": {name.replace("train", "Train").replace("test", "Test"): data for name, data in TWO_SPLITS.items()},
    "jfif": TWO_SPLITS | {"train/cat/1.jfif": colour(1)},
    "thumbnails": TWO_SPLITS | {"train/cat/@eaDir/1.png": colour(1)},
}


@pytest.mark.parametrize("make", [write, zipped])
@pytest.mark.parametrize("what", [None, *REVISED])
def test_whether_the_first_version_read_otherwise_is_known_before_anything_is_read(tmp_path: Path, make: Any, what: str | None) -> None:
    source = make(tmp_path / "data", REVISED[what] if what else TWO_SPLITS | {"train/cat/Thumbs.db": b"x", "notes.txt": b"x"})
    assert survey(source, 0.2).revised == (what is not None)


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
