"""edm2 stats import, with Inception of random weights."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stats")
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as during:
        during.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    torch.save(module.state_dict(), folder / "weights.pth")
    np.savez(folder / "theirs.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    return folder


def edm2(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pipelines.cli.main", "stats", "import", *arguments, "--store", "store", "--origin", "a page"]
    ran = subprocess.run(command, cwd=folder, text=True, capture_output=True, env=environment, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_statistics_become_a_reference_that_an_experiment_finds(folder: Path) -> None:
    options = ("--recipe", "digits/C", "--weights", "weights.pth", "--count", "1438", "--resolution", "8")
    code, printed = edm2(folder, "theirs.npz", *options)
    assert code == 0, printed
    assert "not from our own of the training images: a page" in printed
    address = next(line.split()[-1] for line in printed.splitlines() if "store/results/reference/" in line)
    (folder / "e.yaml").write_text(
        "name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: [fid]\nprobe: false\nsample: {count: 3000}\ninception_weights: weights.pth\n"
        "overrides: {reference: {source: theirs.npz, extractor: inception, count: 1438, resolution: 8, origin: elsewhere}}\n"
    )
    command = [sys.executable, "-m", "pipelines.cli.main", "plan", "e.yaml", "--store", "store"]
    planned = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=True, env={**os.environ, "COLUMNS": "200"}).stdout
    assert any(
        line.startswith("✓") and line.endswith(address.removeprefix("store/results/")) for line in map(str.strip, planned.splitlines())
    )


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("absent.npz", ["--count", "1438", "--resolution", "8"], "There is no such file"),
        ("theirs.npz", ["--count", "1438", "--resolution", "32"], "images of 32 pixels, the network of 8"),
        ("theirs.npz", ["--count", "50000", "--resolution", "8"], "are of 50000 images, and the data have 1438"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, file: str, options: list[str], words: str) -> None:
    code, printed = edm2(folder, file, *options, "--recipe", "digits/C", "--weights", "weights.pth")
    assert code != 0
    assert words in " ".join(printed.split())
