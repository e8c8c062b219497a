"""edm2 stats import, with Inception of random weights."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tests.pipelines.conftest import Edm2


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


Import = Callable[..., tuple[int, str]]


@pytest.fixture
def stats_import(edm2: Edm2, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Import statistics into the folder's store."""
    monkeypatch.chdir(folder)
    return lambda *arguments: edm2("stats", "import", *arguments, "--store", "store", "--origin", "a page")


def test_statistics_become_a_reference_that_an_experiment_finds(
    stats_import: Import, edm2: Edm2, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--recipe", "digits/C", "--weights", "weights.pth", "--count", "1438", "--resolution", "8")
    code, printed = stats_import("theirs.npz", *options)
    assert code == 0, printed
    assert "not from our own of the training images: a page" in printed
    address = next(line.split()[-1] for line in printed.splitlines() if "store/results/reference/" in line)
    (folder / "e.yaml").write_text(
        "name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: [fid]\nprobe: false\nsample: {count: 3000}\ninception_weights: weights.pth\n"
        "overrides: {reference: {source: theirs.npz, extractor: inception, count: 1438, resolution: 8, origin: elsewhere}}\n"
    )
    monkeypatch.setenv("COLUMNS", "200")
    planned = edm2("plan", "e.yaml", "--store", "store")[1]
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
def test_what_does_not_fit_is_refused(stats_import: Import, file: str, options: list[str], words: str) -> None:
    code, printed = stats_import(file, *options, "--recipe", "digits/C", "--weights", "weights.pth")
    assert code != 0
    assert words in " ".join(printed.split())
