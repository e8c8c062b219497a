import json
from pathlib import Path

import numpy as np
import pytest

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.errors import InputError, IntegrityError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare_data(DataSettings(format="digits"), None, tmp_path / "out")
    return tmp_path / "out"


def test_arrays_are_memory_mapped_and_read_only(folder: Path) -> None:
    data = load_prepared(folder)
    assert isinstance(data.train_images, np.memmap)
    assert (data.train_images.dtype, data.train_labels.dtype) == (np.uint8, np.int64)
    with pytest.raises(ValueError, match="read-only"):
        data.train_images[0] = 0


def test_a_folder_without_a_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no prepared data set(.|\n)*{tmp_path.name}"):
        load_prepared(tmp_path)


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "dataset.json"])
@pytest.mark.parametrize("keep", [0, 40, -1])
def test_a_shortened_file_is_named(folder: Path, name: str, keep: int) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:keep] if keep >= 0 else content[:-2])
    with pytest.raises(IntegrityError, match=name):
        load_prepared(folder)


def test_files_that_do_not_fit_together_are_named(folder: Path) -> None:
    info = json.loads((folder / "dataset.json").read_text())
    info["counts"]["test"] += 1
    (folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(IntegrityError, match=r"test_images\.npy"):
        load_prepared(folder)


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_no_class_has_are_refused(folder: Path, label: int) -> None:
    labels = np.load(folder / "test_labels.npy")
    labels[3] = label
    np.save(folder / "test_labels.npy", labels)
    with pytest.raises(IntegrityError, match=r"has labels from -?\d to \d+, and there are 10 classes") as caught:
        load_prepared(folder)
    assert caught.value.where.endswith("test_labels.npy")
