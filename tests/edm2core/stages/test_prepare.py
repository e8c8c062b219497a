from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edm2core.config.settings import DataSettings
from edm2core.errors import InputError
from edm2core.stages import prepare


def test_digits_are_prepared_and_described(bench: Any) -> None:
    _, manifest = bench.run(prepare.run, "prepare", DataSettings(format="digits", standardize=True).model_dump(mode="json"))
    assert manifest.metadata["counts"]["train"] + manifest.metadata["counts"]["test"] == 1797
    assert len(manifest.metadata["classes"]) == 10
    assert set(manifest.metadata["affine"]) == {"scale", "offset"}
    assert {"train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy", "dataset.json"} <= set(manifest.files)


def test_a_source_that_is_not_there_is_named(bench: Any, tmp_path: Path) -> None:
    settings = DataSettings(format="cifar10", source=str(tmp_path / "nowhere.tar.gz")).model_dump(mode="json")
    work = bench.workspace("prepare", settings, {})
    with pytest.raises(InputError, match="does not exist"):
        prepare.run(work)
    assert not list(work.out.iterdir())


@pytest.mark.parametrize(("shades", "words"), [((10, 90), "all of one colour each"), ((10, 10), "all the same image")])
def test_images_that_nothing_can_be_learned_from_are_refused_before_anything_is(
    bench: Any, tmp_path: Path, shades: tuple[int, ...], words: str
) -> None:
    for number, shade in enumerate(shades):
        (tmp_path / "images" / f"class{number}").mkdir(parents=True)
        for copy in range(2):
            Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(tmp_path / "images" / f"class{number}" / f"{copy}.png")
    settings = DataSettings(format="images", source=str(tmp_path / "images"), resolution=8, test_share=0)
    with pytest.raises(InputError, match=f"The training images are {words}"):
        prepare.run(bench.workspace("prepare", settings.model_dump(mode="json"), {}))
