"""Archives as NVlabs' dataset_tool.py writes them."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.data.formats.folders import survey
from edm2core.errors import InputError

NAMES = [f"{number // 4:05d}/img{number:08d}.png" for number in range(12)]
CLASSES = [3, 0, 1, 3, 0, 1, 3, 0, 1, 3, 0, 11]


def image(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, content: Any, prefix: str = "", **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for value, name in enumerate(NAMES):
            file.writestr(prefix + name, image(value))
        if content is not None:
            file.writestr(f"{prefix}dataset.json", json.dumps(content))
        for name, data in more.items():
            file.writestr(prefix + name, data)
    return path


def prepared(path: Path) -> Any:
    prepare_data(DataSettings(format="images", source=str(path), resolution=8, test_share=0), path, path.with_name("out"))
    return load_prepared(path.with_name("out"))


def one_hot(label: int) -> list[float]:
    return [float(number == label) for number in range(12)]


FORMS = {
    "pairs": [[name, label] for name, label in zip(NAMES, CLASSES, strict=True)],
    "object": dict(zip(NAMES, CLASSES, strict=True)),
    "one-hot": [[name, one_hot(label)] for name, label in zip(NAMES, CLASSES, strict=True)],
    "floats": [[name, float(label)] for name, label in zip(NAMES, CLASSES, strict=True)],
    "backslashes": [[name.replace("/", "\\"), label] for name, label in zip(NAMES, CLASSES, strict=True)],
}


@pytest.mark.parametrize("prefix", ["", "cifar/"])
@pytest.mark.parametrize("form", FORMS)
def test_labels_are_those_of_its_json_in_numerical_order(tmp_path: Path, form: str, prefix: str) -> None:
    data = prepared(archive(tmp_path / "a.zip", {"labels": FORMS[form]}, prefix))
    assert data.classes == ("0", "1", "3", "11")
    by_value = dict(zip(data.train_images[:, 0, 0, 0].tolist(), data.train_labels.tolist(), strict=True))
    assert [int(data.classes[by_value[value]]) for value in range(12)] == CLASSES
    assert survey(tmp_path / "a.zip", 0).revised
    assert "dataset.json" not in (data.info["warning"] or "")


@pytest.mark.parametrize("content", [{"labels": None}, {"labels": []}, None])
def test_without_labels_all_are_of_one_class_and_this_is_said(tmp_path: Path, content: Any) -> None:
    data = prepared(archive(tmp_path / "a.zip", content))
    assert data.classes == ("all",)
    assert "no labels" in data.info["warning"]
    assert np.unique(data.train_images[:, 0, 0, 0]).tolist() == list(range(12))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (FORMS["pairs"][1:], "no label of '00000/img00000000.png'"),
        ([*FORMS["pairs"], ["00009/img00000099.png", 1]], "'00009/img00000099.png' is missing"),
        ([[name, [0.3, 0.7]] for name in NAMES], "no one-hot class"),
        ([[name, "cat"] for name in NAMES], "'cat', which is no class"),
        ([[name, -1] for name in NAMES], "-1, which is no class"),
        ([[name, float("nan")] for name in NAMES], "which is no class"),
        ([1, 2, 3], "no pairs"),
        ("text", "no pairs"),
        ([*FORMS["pairs"], [NAMES[0], 7]], "two labels of '00000/img00000000.png'"),
        ([[name, 10**400] for name in NAMES], "which is no class"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused_by_name(tmp_path: Path, labels: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        prepared(archive(tmp_path / "a.zip", {"labels": labels}))
    assert "dataset.json" in caught.value.where
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"", b'{"labels": [[', b"[]", b'{"labels":' + b"[" * 100_000])
def test_a_json_that_cannot_be_read_is_not_taken_for_no_labels(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="the file is no object in JSON") as caught:
        survey(archive(tmp_path / "a.zip", None, **{"dataset.json": content}), 0)
    assert "dataset.json" in caught.value.where


def test_labels_without_images_are_said_to_be_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("00000/img00000000.npy", b"x")
        file.writestr("dataset.json", json.dumps({"labels": None}))
    with pytest.raises(InputError, match="labels of images, and there are none"):
        survey(tmp_path / "a.zip", 0.2)


def test_latents_are_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("00000/img-mean-std-latents-00000000.npy", b"x")
        file.writestr("dataset.json", json.dumps({"labels": None}))
    with pytest.raises(InputError, match="latents of an autoencoder"):
        survey(tmp_path / "a.zip", 0)


def test_a_json_of_somebody_elses_beside_class_folders_changes_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(4):
            file.writestr(f"{'ab'[number % 2]}/{number}.png", image(number))
        file.writestr("dataset.json", json.dumps({"author": "me"}))
    assert prepared(tmp_path / "a.zip").classes == ("a", "b")
    assert not survey(tmp_path / "a.zip", 0).revised
