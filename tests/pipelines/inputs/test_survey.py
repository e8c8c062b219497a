"""Data that are too few for what an experiment measures: refused when it is read, by names alone."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.keys import key_of, keyed
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.registry import WEIGHT_FILES
from edm2core.worker.fetching import data_settings
from pipelines.inputs.user_files import resolve


def folder(path: Path, **counts: int) -> Path:
    """Files that are no images, so that one that is decoded fails; `train_cat=3` makes three."""
    for name, count in counts.items():
        for number in range(count):
            file = path.joinpath(*name.split("_"), f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
    return path


def read(tmp_path: Path, source: Path, network: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **settings: Any) -> None:
    recipe = {
        "extends": "digits/C",
        "name": "mine/C",
        "data": {"format": "images", "source": str(source), "resolution": 8, **(data or {})},
        "network": {"image_channels": 3, **(network or {})},
    }
    torch.save(dict.fromkeys(WEIGHT_FILES["inception"].names, torch.zeros(1)), tmp_path / "weights.pth")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    asked = {"name": "mine", "recipes": ["mine.yaml"], "epochs": [1], "inception_weights": "weights.pth", "sample": {"count": 3000}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**asked, **settings}))
    resolve(load_experiment(tmp_path / "e.yaml"))


def test_too_few_training_images_for_a_covariance_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "images", train_cat=1024, train_dog=1024, test_cat=1, test_dog=1)
    with pytest.raises(
        InputError, match="have 2048 images for training, and 'fid' needs at least 2049, since a covariance of 2048"
    ) as caught:
        read(tmp_path, source, metrics=["fid"])
    assert str(source) in caught.value.where
    folder(source, train_cat=1025)
    read(tmp_path, source, metrics=["fid"])


def test_images_that_become_the_test_split_do_not_count(tmp_path: Path) -> None:
    source = folder(tmp_path / "images", cat=600, dog=600)
    with pytest.raises(InputError, match="have 960 images for training, and 'kid' needs at least 1000"):
        read(tmp_path, source, metrics=["kid"])
    read(tmp_path, source, data={"test_share": 0.1}, metrics=["kid"])


def test_what_is_left_out_needs_no_images(tmp_path: Path) -> None:
    source = folder(tmp_path / "images", cat=600, dog=600)
    read(tmp_path, source, metrics=["precision"], optional_metrics=["fd_dinov2"])


@pytest.mark.parametrize(
    ("counts", "settings", "words"),
    [
        ({"train_cat": 9, "train_dog": 9, "test_cat": 9}, {}, "Class 'dog' is in train/ and missing here"),
        ({"cat": 9, "dog": 1}, {}, "Class 'dog' has 1 image, and a training and a test split need one each"),
        ({"cat": 9, "dog": 9}, {"data": {"test_share": 0}}, "needs test images, and the data set has none"),
        (
            {"cat": 9, "dog": 2},
            {"probe": {"t": [3, 4]}},
            "needs 2 training images of every class, and has fewer of dog; a grid holds some out",
        ),
    ],
)
def test_a_class_that_the_probe_cannot_learn_or_test_is_refused(
    tmp_path: Path, counts: dict[str, int], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, folder(tmp_path / "images", **counts), metrics=[], **settings)
    assert words in caught.value.what


def test_without_a_probe_classes_may_lack_test_images(tmp_path: Path) -> None:
    read(tmp_path, folder(tmp_path / "images", cat=9, dog=9), data={"test_share": 0}, metrics=[], probe=False)


def test_a_network_of_other_classes_than_the_datas_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "images", cat=9, dog=9)
    with pytest.raises(InputError, match=r"network\.classes of mine/C is 3; the data set has 2 classes"):
        read(tmp_path, source, network={"classes": 3}, metrics=[])
    read(tmp_path, source, network={"classes": 2}, metrics=[])


def test_a_zip_is_counted_as_a_folder_is(tmp_path: Path) -> None:
    source = folder(tmp_path / "images", cat=9, dog=9)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for path in source.rglob("*.png"):
            packed.write(path, path.relative_to(source))
    with pytest.raises(InputError, match="have 14 images for training, and 'kid' needs"):
        read(tmp_path, tmp_path / "images.zip", metrics=["kid"])


def test_digits_without_test_images_cannot_be_probed(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: [fd]\noverrides: {data.test_share: 0}\n")
    with pytest.raises(InputError, match="needs test images"):
        resolve(load_experiment(tmp_path / "e.yaml"))


def grey_and_transparent(path: Path, mode: str) -> Path:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(3):
                file = path / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (8, 8), number).save(file)
    return path


def prepared_as(tmp_path: Path, source: str, **settings: Any) -> Task:
    """The task that prepares this source, as an experiment plans it."""
    network = settings.pop("network", {})
    recipe = {"extends": "digits/C", "name": "mine/C", "network": {"image_channels": 3, **network}}
    recipe["data"] = {"format": "images", "source": source, "resolution": 8, **settings}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "e.yaml").write_text("name: mine\nrecipes: [mine.yaml]\nepochs: [1]\nmetrics: []\nprobe: false\n")
    experiment = load_experiment(tmp_path / "e.yaml")
    return plan(experiment, resolve(experiment))[0]


def first_key(task: Task) -> str:
    """The key that the first version gave a task that prepares data."""
    settings = data_settings({**task.settings, "digest": None})
    return key_of("prepare", 1, keyed(settings), {"source": task.settings["digest"]})


def test_the_key_of_images_moves_only_where_they_have_an_alpha_channel(tmp_path: Path) -> None:
    opaque = prepared_as(tmp_path, str(grey_and_transparent(tmp_path / "opaque", "RGB")))
    assert (opaque.version, opaque.key) == (1, first_key(opaque))
    clear = prepared_as(tmp_path, str(grey_and_transparent(tmp_path / "clear", "RGBA")))
    assert clear.version == 2
    assert clear.key != first_key(clear)


def test_of_images_behind_a_url_nobody_knows_so_their_key_moves(tmp_path: Path) -> None:
    task = prepared_as(tmp_path, "https://example.org/images.zip", digest="sha256:" + "0" * 64)
    assert task.version == 2


def test_a_background_of_ones_own_is_another_data_set(tmp_path: Path) -> None:
    source = str(grey_and_transparent(tmp_path / "clear", "RGBA"))
    assert prepared_as(tmp_path, source).key != prepared_as(tmp_path, source, background=[0, 0, 0]).key


def test_own_images_are_grey_where_the_network_is(tmp_path: Path) -> None:
    source = str(grey_and_transparent(tmp_path / "images", "RGB"))
    task = prepared_as(tmp_path, source, network={"image_channels": 1})
    assert task.settings["channels"] == 1
    assert task.key != prepared_as(tmp_path, source).key


@pytest.mark.parametrize(
    ("network", "data", "words"), [(2, {}, "images has 3"), (1, {"channels": 3}, "images has 3"), (3, {"channels": 1}, "images has 1")]
)
def test_other_channels_than_the_images_have_are_refused_when_the_experiment_is_read(
    tmp_path: Path, network: int, data: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=rf"network\.image_channels is {network}; {words}"):
        prepared_as(tmp_path, "nowhere", network={"image_channels": network}, **data)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "an empty file, of zero bytes"), (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer")]
)
def test_what_stands_in_place_of_an_image_is_refused_when_the_experiment_is_read(tmp_path: Path, content: bytes, words: str) -> None:
    source = folder(tmp_path / "images", cat=9, dog=9)
    (source / "dog/7.png").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, source, metrics=[])
    assert "dog/7.png" in caught.value.where


@pytest.mark.parametrize(
    ("content", "words"), [(b"<html>", "a web page"), (b"Rar!\x1a\x07\0", "a RAR archive"), (b"\x93NUMPY", "array in .npy")]
)
def test_what_stands_in_place_of_an_archive_is_refused_when_the_experiment_is_read(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(content)
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [cifar10/C]\nepochs: [1]\nmetrics: []\noverrides: {data.source: cifar.tar.gz}\n")
    with pytest.raises(InputError, match=words):
        resolve(load_experiment(tmp_path / "e.yaml"))


def test_tiny_imagenet_brought_to_another_side_fits_a_network_of_that_side(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [tinyimagenet/C]\nepochs: [1]\nmetrics: []\noverrides: {data.resolution: 32, network.resolution: %d, "
    text += "network.attention_resolutions: [16]}\n"
    (tmp_path / "e.yaml").write_text(text % 32)
    assert load_experiment(tmp_path / "e.yaml").recipes[0].network.resolution == 32
    (tmp_path / "e.yaml").write_text(text % 64)
    with pytest.raises(InputError, match=r"network\.resolution is 64; tinyimagenet has 32"):
        load_experiment(tmp_path / "e.yaml")
