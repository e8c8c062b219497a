"""An experiment that is written for the user's own images."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edm2core.plan.experiment import load_experiment
from pipelines.inputs import new_experiment as written

Edm2 = Callable[..., tuple[int, str]]


def pictures(folder: Path, classes: int = 2, each: int = 40, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Path:
    numbers = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(each):
            pixels = numbers.integers(0, 200, (*size[::-1], 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f"class{label}" / f"{index}.png")
    return folder


def test_it_follows_from_what_the_images_show(edm2: Edm2, tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    code, printed = edm2("new", "flowers", "--data", "images")
    assert code == 0, printed
    experiment = load_experiment(tmp_path / "flowers" / "experiment.yaml")
    assert [recipe.name for recipe in experiment.recipes] == ["flowers/E", "flowers/G"]
    for recipe in experiment.recipes:
        assert (recipe.network.resolution, recipe.network.image_channels, recipe.data.channels) == (16, 3, 3)
        assert recipe.data.source == str(tmp_path / "images")
    assert experiment.probe
    assert "classes: class0, class1" in (tmp_path / "flowers" / "E.yaml").read_text()
    assert edm2("plan", "flowers/experiment.yaml")[0] == 0


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("size", [(5, 5), (8, 30), (40, 33), (300, 200)])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_images_of_any_size_and_colour_get_settings_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, size: tuple[int, int], mode: str, channels: int
) -> None:
    monkeypatch.setattr(written, "gpus", lambda: gpus)
    pictures(tmp_path / "images", each=3, size=size, mode=mode)
    file = written.new_experiment(tmp_path / "new", tmp_path / "images")
    assert load_experiment(file).recipes[0].network.image_channels == channels


def test_one_class_is_not_probed_and_few_images_are_not_measured(tmp_path: Path) -> None:
    experiment = load_experiment(written.new_experiment(tmp_path / "new", pictures(tmp_path / "images", classes=1, each=5)))
    assert not experiment.probe
    assert set(experiment.metrics.values()) == {()}


def test_nothing_is_overwritten_and_nothing_is_left_of_what_was_refused(edm2: Edm2, tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    (tmp_path / "mine").mkdir()
    for name, data, words in (
        ("mine", "images", "There is a mine already."),
        ("a b", "images", "cannot be an experiment's name"),
        ("new", "absent.zip", "There is no absent.zip."),
    ):
        code, printed = edm2("new", name, "--data", data)
        assert code == 2
        assert words in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "mine"]
    assert not any((tmp_path / "mine").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs(edm2: Edm2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    pictures(tmp_path / "images")
    edm2("new", "flowers", "--data", "images")
    sooner = ("--set", "training.epochs=2", "--set", "epochs=[2]", "--set", "sample.count=64", "--set", "training.warmup_epochs=1")
    code, printed = edm2("run", "flowers/experiment.yaml", "--jobs", "1", *sooner)
    assert code == 0, printed
    assert "report.html" in printed
