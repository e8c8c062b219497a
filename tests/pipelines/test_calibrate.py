"""edm2 calibrate, as a user types it."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from edm2core.errors import InputError
from pipelines.cli.main import cli

EXPERIMENT = """
name: calibrated
recipes: [digits/G]
epochs: [1]
metrics: [fd]
probe: false
sample: {count: 80, steps: 3}
overrides: {network.multipliers: [1], network.attention_resolutions: [], training.batch: 256}
"""


def edm2(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments, "--store", "store"]
    ran = subprocess.run(command, cwd=folder, text=True, capture_output=True, env=environment, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of others, as they publish them."""
    folder = tmp_path_factory.mktemp("calibrate")
    generator = np.random.default_rng(0)
    np.savez(folder / "theirs.npz", mu=generator.standard_normal(64), sigma=np.eye(64))
    np.savez(folder / "narrow.npz", mu=np.zeros(32), sigma=np.eye(32))
    np.savez(folder / "model.npz", arr_0=generator.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8))
    np.save(folder / "few.npy", generator.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8))
    return folder


MODEL = ("--images", "model.npz", "--model", "noise", "--expected", "3", "--tolerance", "0.1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_given_is_measured_once_and_shown_in_reports(folder: Path) -> None:
    statistics = ("--statistics", "theirs.npz", "--origin", "a page")
    code, printed = edm2(folder, "calibrate", "digits/C", *statistics, *MODEL)
    assert code == 1, printed  # noise is far from 3
    assert re.search(r"· digits · calibration by the test images: FD \(digits features\) \S+ ± \S+ of 359 images\n", printed)
    assert "· digits · calibration by statistics of a page: mean" in printed
    assert "of 200 images; published 3, beyond 0.1 of it" in printed
    made = {path: path.stat().st_mtime for path in folder.glob("store/results/*/*/manifest.json")}
    assert made
    code, again = edm2(folder, "calibrate", "digits/C", *MODEL[:-1], "1e9")
    assert code == 0, again
    assert "within 1e+09 of it" in again
    assert "not compared with others' statistics: --statistics (NVlabs'" in again
    assert len(set(folder.glob("store/results/*/*/manifest.json")) - set(made)) == 1
    assert all(path.stat().st_mtime == time for path, time in made.items())
    (folder / "e.yaml").write_text(EXPERIMENT)
    code, printed = edm2(folder, "run", "e.yaml")
    assert code == 0, printed
    page = next(folder.glob("store/runs/calibrated-*/report.html"))
    assert "calibration by noise" in page.read_text()
    assert len(json.loads(page.with_name("results.json").read_text())["run"]["calibrations"]) == 4
    kept, removed = edm2(folder, "gc")
    assert kept == 0
    assert "calibration/" not in removed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cifar10/C",), "The weights of Inception are not given"),
        (("cifar10/C", "--weights", "absent.pth"), "There is no file"),
        (("cifar10/C", "--weights", "model.npz", "--data", "absent.tar.gz"), "The data's path does not exist"),
        (("digits/C", "--images", "model.npz"), "--model and --expected and --tolerance are missing beside --images"),
        (("digits/C", "--statistics", "theirs.npz"), "--origin is missing beside --statistics"),
        (("digits/C", "--statistics", "narrow.npz", "--origin", "a page"), "these features have 64 dimensions"),
        (("digits/C", "--statistics", "absent.npz", "--origin", "a page"), "no file absent.npz"),
        (("digits/C", "--images", "few.npy", *MODEL[2:]), "64 images are too few"),
        (("digits/C", "--images", "theirs.npz", *MODEL[2:]), "the data are uint8 images of shape [1, 8, 8]"),
        (("digits/C", "--images", "sample/0", *MODEL[2:]), "There are no sample/0"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said_at_once(
    folder: Path, arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as raised:
        cli.main(["calibrate", *arguments, "--store", str(tmp_path / "store")], standalone_mode=False)
    assert words in str(raised.value)
    assert not list(tmp_path.glob("store/results/*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_inception_and_images_in_the_formats_that_are_published(tmp_path: Path) -> None:
    """Random weights in torch-fidelity's file, a folder of image files, statistics in an .npz.

    Every process takes the network's first features, which are 64, so that 70 images are enough. For the last, 2048, it takes 2049.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "from edm2core.registry import EXTRACTORS\nEXTRACTORS['inception'] = EXTRACTORS['inception']._replace(layer='64', dimensions=64)\n"
    )
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as during:
        during.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    images = np.random.default_rng(0).integers(0, 256, (2, 70, 8, 8, 3), dtype=np.uint8)
    for part, members in zip(("train", "test"), images, strict=True):
        for number, image in enumerate(members):
            path = tmp_path / "images" / part / f"class{number % 2}" / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    np.savez(tmp_path / "theirs.npz", mu=np.ones(64), sigma=np.eye(64))
    (tmp_path / "mine.yaml").write_text(
        "name: mine/C\nextends: cifar10/C\ndata: {format: images, source: images, resolution: 8, digest: null}\n"
        "network: {resolution: 8, multipliers: [1, 2], attention_resolutions: [4]}\n"
    )
    options = ("--weights", "weights.pth", "--statistics", "theirs.npz", "--origin", "a page")
    code, printed = edm2(tmp_path, "calibrate", "mine.yaml", *options)
    assert code == 0, printed
    assert "distances are not comparable with FIDs in the literature" in printed
    assert re.search(r"calibration by the test images: FID \S+ ± \S+ of 70 images", printed)
    assert re.search(r"calibration by statistics of a page: means differ by \S+ and covariances by \S+, relative to ours", printed)
