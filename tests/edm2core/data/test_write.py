import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.errors import EdmError, InputError

DIGITS = DataSettings(format="digits")


def image_folder(folder: Path, images: dict[str, np.ndarray]) -> DataSettings:
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return DataSettings(format="images", source=str(folder), resolution=4, standardize=True, test_share=0.0)


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    settings = image_folder(tmp_path / "data", {f"a/{n}.png": generator.integers(0, 200, (4, 4, 3), dtype=np.uint8) for n in range(300)})
    info = prepare_data(settings, tmp_path / "data", tmp_path / "out")
    data = load_prepared(tmp_path / "out")
    unit = np.asarray(data.train_images) / 255
    assert info["mean"] == pytest.approx(unit.mean(axis=(0, 2, 3)).tolist(), abs=1e-12)
    assert info["std"] == pytest.approx(unit.std(axis=(0, 2, 3)).tolist(), abs=1e-12)
    assert info["network_std"] == pytest.approx((unit * data.pixel_scale.scale + data.pixel_scale.offset).std(), abs=1e-12)


def test_equal_pixels_cannot_be_standardised(tmp_path: Path) -> None:
    settings = image_folder(tmp_path / "data", {"a/1.png": np.full((4, 4, 3), 9, np.uint8)})
    with pytest.raises(InputError, match="All pixels are equal"):
        prepare_data(settings, tmp_path / "data", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_progress_counts_images_up_to_all(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare_data(DIGITS, None, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (1797, 1797)


def test_an_empty_folder_may_stand_there_and_a_full_one_may_not(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    prepare_data(DIGITS, None, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="not empty"):
        prepare_data(DIGITS, None, tmp_path / "out")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_data(DIGITS, None, tmp_path / "out", interrupt)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_hold_it_is_an_error_with_words(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(EdmError, match=r"cannot be written(.|\n)*out(.|\n)*Free some space"):
            prepare_data(DIGITS, None, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_missing_source_is_an_error_with_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        prepare_data(DataSettings(format="cifar10", source="x"), tmp_path / "nowhere", tmp_path / "out")


def test_importing_the_package_stays_light() -> None:
    code = "import sys, edm2core.data; print(sorted({'torch', 'PIL', 'sklearn', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
