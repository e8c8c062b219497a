"""edm2 ema, and an experiment that sweeps the width of the average, with the real command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edm2core.snapshots import files as snapshot
from edm2core.store import open_store
from edm2core.store.gc import plan_gc

Edm2 = Callable[..., tuple[int, str]]
SWEEP = """
name: sweep
recipes: [digits/E]
epochs: [8]
metrics: [fd]
probe: false
sample: {count: 80, steps: 3, ema: [fixed, 0.05, 0.075]}
overrides: {network.multipliers: [1], network.attention_resolutions: [], training.batch: 256, training.epochs: 8, training.average_every: 1}
"""


def edm2(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, cwd=folder, text=True, capture_output=True, env=environment, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "e.yaml").write_text(SWEEP)
    code, printed = edm2(folder, "run", "e.yaml", "--store", "store")
    assert code == 0, printed
    return folder


def keys(folder: Path, stage: str) -> list[str]:
    return sorted(path.parent.name for path in (folder / "store" / "results" / stage).glob("*/manifest.json"))


def manifest(folder: Path, stage: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "store" / "results" / stage / key / "manifest.json").read_text())
    return found


@pytest.mark.slow
def test_a_sweep_gives_a_value_for_each_width_and_the_best(swept: Path) -> None:
    rows = json.loads(next(swept.glob("store/runs/*/results.json")).read_text())["results"]
    assert sorted(row["ema"] for row in rows) == ["0.050", "0.075", "fixed"]
    assert len({row["value"] for row in rows}) == 3
    assert {manifest(swept, "ema", key)["metadata"]["emas"][0] for key in keys(swept, "ema")} == {"0.075"}
    page = next(swept.glob("store/runs/*/report.html")).read_text()
    assert "By the width of the average" in page


@pytest.mark.slow
def test_the_command_mixes_any_width_and_says_how_exact_it_is(swept: Path) -> None:
    [key] = keys(swept, "snapshot")
    code, printed = edm2(swept, "ema", f"store/results/snapshot/{key}", "--sigma-rel", "0.08", "--sigma-rel", "0.1")
    assert code == 0, printed
    assert "EMA 0.080 at epoch 8: profile error 1." in printed
    assert "from 8 epochs' averages; rounding " in printed
    assert re.search(r"rounding \d\.\de-\d\d of the weights, 0\.\d\d% of the way to them", printed)
    addresses = [line for line in printed.splitlines() if line.endswith(tuple(keys(swept, "ema")))]
    assert snapshot.load(swept / addresses[0], ema="0.080").network.block_names
    assert not [r for r in plan_gc(open_store(str(swept / "store")), days=0) if r.path.startswith(("results/ema/", "results/average/"))]


@pytest.mark.slow
def test_what_a_sweep_has_mixed_is_not_mixed_again(swept: Path) -> None:
    before = keys(swept, "ema")
    [run] = [path.name for path in swept.glob("store/runs/sweep-*")]
    code, printed = edm2(swept, "ema", run, "--store", "store", "--sigma-rel", "0.075")
    assert code == 0, printed
    assert keys(swept, "ema") == before


@pytest.mark.slow
def test_a_large_error_is_refused_unless_forced(swept: Path) -> None:
    [key] = keys(swept, "snapshot")
    code, printed = edm2(swept, "ema", f"snapshot/{key}", "--store", "store", "--sigma-rel", "0.01")
    assert code == 2
    assert "more than 5% says nothing" in printed
    code, printed = edm2(swept, "ema", f"snapshot/{key}", "--store", "store", "--sigma-rel", "0.01", "--force")
    assert code == 0, printed


@pytest.mark.slow
def test_a_damaged_average_is_found_by_verify(swept: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(swept / "store"), str(tmp_path)], check=True)
    file = next(tmp_path.glob("store/results/average/*/*/ema-0.050.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(data)
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 1
    assert "stored averages at epoch" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["snapshot/0123", "--sigma-rel", "0.1"], "no finished snapshot"),
        (["nothing", "--sigma-rel", "0.1"], "no run nothing"),
        (["snapshot/0123", "--sigma-rel", "0.5"], "below 0.288"),
        (["snapshot/0123", "--sigma-rel", "wide"], "below 0.288"),
        (["snapshot/0123", "--sigma-rel", "fixed"], "in every snapshot"),
        (["--sigma-rel", "0.1"], "SNAPSHOTS"),
    ],
)
def test_what_cannot_be_mixed_is_bad_input_in_words(edm2: Edm2, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "store" / "runs").mkdir(parents=True)
    code, printed = edm2("ema", *arguments, "--store", "store")
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed
