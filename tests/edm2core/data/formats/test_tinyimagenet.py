import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.errors import InputError

ROOT = "tiny-imagenet-200/"


def jpeg(value: int, side: int = 64, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), value if mode == "L" else (value,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def members(**changes: bytes | None) -> dict[str, bytes]:
    """A small archive in the published layout: two classes, listed unsorted; a change of None leaves a member out."""
    result: dict[str, bytes | None] = {
        "wnids.txt": b"n02\nn01\n",
        "words.txt": b"n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tbullfrog, Rana catesbeiana\n",
        "test/images/test_0.JPEG": jpeg(7),
        "train/n01/n01_boxes.txt": b"n01_0.JPEG\t0\t0\t63\t63\n",
        "val/val_annotations.txt": b"val_1.JPEG\tn01\t0\t0\t9\t9\nval_0.JPEG\tn02\t0\t0\t9\t9\n",
        "val/images/val_0.JPEG": jpeg(200),
        "val/images/val_1.JPEG": jpeg(100),
        "train/n02/images/n02_0.JPEG": jpeg(20),
        "train/n01/images/n01_1.JPEG": jpeg(11, mode="L"),
        "train/n01/images/n01_0.JPEG": jpeg(10),
    }
    result |= changes
    return {ROOT + name: data for name, data in result.items() if data is not None}


def prepared(tmp_path: Path, content: dict[str, bytes], **settings: Any) -> Any:
    source = tmp_path / "tiny.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    prepare_data(DataSettings(format="tinyimagenet", source=str(source), **settings), source, tmp_path / "out")
    return load_prepared(tmp_path / "out")


def test_classes_follow_the_sorted_wnids_and_grey_becomes_rgb(tmp_path: Path) -> None:
    data = prepared(tmp_path, members())
    assert data.classes == ("goldfish", "bullfrog")
    assert data.train_labels.tolist() == [0, 0, 1]
    assert data.train_images.shape == (3, 3, 64, 64)
    assert data.train_images[:, :, 5, 5].tolist() == [[10] * 3, [11] * 3, [20] * 3]


def test_the_validation_images_are_the_test_split_by_their_annotations(tmp_path: Path) -> None:
    data = prepared(tmp_path, members())
    assert data.test_labels.tolist() == [1, 0]
    assert data.test_images[:, 0, 5, 5].tolist() == [200, 100]


def test_an_unpacked_folder_serves_as_well(tmp_path: Path) -> None:
    for name, data in members().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    info = prepare_data(DataSettings(format="tinyimagenet", source="x"), tmp_path, tmp_path / "out")
    assert info["counts"]["per_class"] == {"train": [2, 1], "test": [1, 1]}


@pytest.mark.parametrize("deep", ["", "images/"])
@pytest.mark.parametrize("annotations", [None, members()[ROOT + "val/val_annotations.txt"]])
def test_validation_images_in_folders_of_their_classes_are_read(tmp_path: Path, deep: str, annotations: bytes | None) -> None:
    moved = {f"val/n02/{deep}val_0.JPEG": jpeg(200), f"val/n01/{deep}val_1.JPEG": jpeg(100)}
    old = {"val/images/val_0.JPEG": None, "val/images/val_1.JPEG": None, "val/val_annotations.txt": annotations}
    data = prepared(tmp_path, members(**old, **moved))
    assert data.test_labels.tolist() == [1, 0]
    assert data.test_images[:, 0, 5, 5].tolist() == [200, 100]


def test_another_resolution_can_be_asked_for(tmp_path: Path) -> None:
    assert np.asarray(prepared(tmp_path, members(), resolution=32).train_images).shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train/n02/images/n02_0.JPEG": None}, r"'n02' of wnids\.txt has no folder(.|\n)*train/n02"),
        ({"train/n03/images/n03_0.JPEG": jpeg(1)}, r"not in wnids\.txt(.|\n)*train/n03"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn02\nval_1.JPEG\tn09\n"}, r"class 'n09'(.|\n)*val_annotations\.txt', line 2"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn02\n"}, r"no annotation(.|\n)*val_1\.JPEG"),
        ({"val/images/val_1.JPEG": None}, r"'val_1\.JPEG', which is missing(.|\n)*line 1"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn02\nval_0.JPEG\tn02\nval_1.JPEG\tn01\n"}, r"'val_0\.JPEG' twice"),
        ({"val/val_annotations.txt": b"val_0.JPEG n02\n"}, r"tabs(.|\n)*line 1"),
        ({"val/val_annotations.txt": None}, r"missing(.|\n)*val_annotations\.txt"),
        ({"val/images/val_0.JPEG": None, "val/images/val_1.JPEG": None, "val/n09/1.JPEG": jpeg(1)}, r"not in wnids\.txt(.|\n)*val/n09"),
        ({"wnids.txt": None}, r"0 files wnids\.txt(.|\n)*tiny\.zip"),
        ({"words.txt": None}, r"missing(.|\n)*words\.txt"),
        ({"train/n01/images/n01_1.JPEG": jpeg(1, side=32)}, r"32 x 32 pixels where others have 64 x 64(.|\n)*n01_1\.JPEG"),
        ({"val/images/val_1.JPEG": jpeg(1)[:200]}, r"truncated(.|\n)*val_1\.JPEG"),
        ({"train/n01/../../evil.JPEG": b""}, r"leads out(.|\n)*tiny\.zip"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_remains(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, members(**changes))
    assert os.listdir(tmp_path) == ["tiny.zip"]
