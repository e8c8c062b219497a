"""edm2 import, with a checkpoint that the reference's training script saved."""

import json
from pathlib import Path

import pytest
import torch

from edm2core.snapshots import files as snapshot
from edm2core.store import open_store
from edm2core.store.gc import plan_gc
from tests.pipelines.conftest import Edm2

SEED_E = Path(__file__).parents[1] / "data" / "seed_E.pth"
NETWORK = "network: {resolution: 16, channels: 32, multipliers: [1, 2], blocks: 2, attention_resolutions: [8], dropout: 0.0}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(f"extends: cifar10/E\n{NETWORK}")
    (tmp_path / "model_2.pth").write_bytes(SEED_E.read_bytes())
    return tmp_path


def test_a_checkpoint_is_imported_once_and_kept(edm2: Edm2, folder: Path) -> None:
    code, printed = edm2("import", "fx", "model_2.pth", "--recipe", "tiny.yaml", "--store", "store")
    assert code == 0, printed
    assert "snapshot and state after 3 epochs, 3 steps" in printed
    address = printed.split()[-1]
    ema = torch.load(SEED_E, weights_only=True)["EMA"]
    denoiser = snapshot.load(folder / address)
    assert torch.equal(denoiser.network.stem.weight, ema["ema_model.nn_model.image_proj.weight"])
    files = {path: path.stat().st_mtime for path in (folder / "store" / "results").rglob("*")}
    assert edm2("import", "fx", "model_2.pth", "--recipe", "tiny.yaml", "--store", "store") == (0, printed)
    assert {path: path.stat().st_mtime for path in (folder / "store" / "results").rglob("*")} == files
    assert not [removal for removal in plan_gc(open_store(str(folder / "store")), days=0) if removal.path.startswith("results/")]


def test_the_experiment_that_goes_on_from_it_finds_it(edm2: Edm2, folder: Path) -> None:
    edm2("import", "fx", "model_2.pth", "--recipe", "tiny.yaml", "--store", "store")
    (folder / "pictures" / "one").mkdir(parents=True)
    (folder / "pictures" / "one" / "1.png").write_bytes(b"no image yet")
    (folder / "e.yaml").write_text(
        "name: theirs\nrecipes: [tiny.yaml]\nepochs: [3, 4]\nmetrics: []\nprobe: false\noverrides: {start.checkpoint: model_2.pth, "
        "data.format: images, data.source: pictures, data.digest: null, data.resolution: 16, data.test_share: 0}\n"
    )
    code, printed = edm2("plan", "e.yaml", "--json")
    assert code == 0, printed
    start = next(task for line in printed.splitlines() if (task := json.loads(line))["stage"] == "start")
    assert (folder / "store" / "results" / "start" / start["key"] / "manifest.json").exists()


def test_a_failed_import_is_listed_as_failed_and_advises_nothing_unsafe(edm2: Edm2, folder: Path) -> None:
    torch.save([Path("code")], folder / "model_5.pth")
    printed = edm2("import", "fx", "model_5.pth", "--recipe", "tiny.yaml", "--store", "store")[1]
    assert "weights_only" not in printed
    listed = edm2("runs", "--store", "store")[1]
    assert listed.split()[3] == "failed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model_2.pth", "--recipe", "cifar10/E"], "missing: nn_model."),
        (["absent.pth", "--recipe", "tiny.yaml"], "absent.pth"),
        (["tiny.yaml", "--recipe", "tiny.yaml"], "does not begin as a file of torch.save does"),
        (["model_2.pth", "--recipe", "cifar10/Q"], "no recipe 'cifar10/Q'"),
        (["model_2.pth", "--recipe", "digits/E"], "standardize"),
        (["model_2.pth"], "--recipe"),
    ],
)
def test_what_cannot_be_imported_is_bad_input_in_words(edm2: Edm2, folder: Path, arguments: list[str], words: str) -> None:
    code, printed = edm2("import", "fx", *arguments, "--store", "store")
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(("content", "words"), [(b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"), (None, "a folder")])
def test_what_is_no_checkpoint_is_refused_before_anything_is_begun(edm2: Edm2, folder: Path, content: bytes | None, words: str) -> None:
    (folder / "model_9.pth").mkdir() if content is None else (folder / "model_9.pth").write_bytes(content)
    code, printed = edm2("import", "fx", "model_9.pth", "--recipe", "tiny.yaml", "--store", "store")
    assert (code, words in printed, "model_<e>.pth" in printed) == (2, True, True), printed
    assert not (folder / "store").exists()
