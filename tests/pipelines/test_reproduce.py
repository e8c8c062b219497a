"""From a number back to the command that computes it, and a store that says what has changed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edm2core.plan.manifest import Manifest

TINY = """
name: tiny
recipes: [digits/G]
epochs: [1, 2]
metrics: [fd]
sample: {count: 80, steps: 3}
probe: false
overrides: {network.multipliers: [1], network.attention_resolutions: [], training.batch: 256}
"""


def edm2(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    ran = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240)
    return ran.returncode, ran.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "e.yaml").write_text(TINY)
    code, printed = edm2(folder, "run", "e.yaml", "--store", "store")
    assert code == 0, printed
    return folder


def results(folder: Path, store: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(next(folder.glob(f"{store}/runs/*/results.json")).read_text())["results"]
    return found


@pytest.mark.slow
def test_the_printed_commands_compute_the_same_number_and_no_other(made: Path) -> None:
    row = next(row for row in results(made, "store") if row["epoch"] == 1)
    code, printed = edm2(made, "reproduce", f"store/results/{row['result']}")
    assert code == 0, printed
    assert str(row["value"]) in printed
    for line in printed.splitlines():
        _, mine, arguments = line.partition("edm2 ")
        if mine and not line.startswith("#"):
            command = f"{sys.executable} -m pipelines.cli.main {arguments}"
            subprocess.run(command, shell=True, cwd=made, check=True, stderr=subprocess.STDOUT, timeout=240)
    assert results(made, "again") == [row]


@pytest.mark.slow
def test_a_result_that_is_not_there_is_bad_input(made: Path) -> None:
    assert edm2(made, "reproduce", "store/results/metrics/0123")[0] == 2
    code, printed = edm2(made, "run", "e.yaml", "--store", "store", "--only", "metrics/0123")
    assert code == 2
    assert "has no result metrics/0123" in printed


@pytest.mark.slow
def test_verify_names_what_has_changed(made: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", f"{made}/store", str(tmp_path)], check=True)
    assert edm2(tmp_path, "verify", "store")[0] == 0
    reference = next(tmp_path.glob("store/results/reference/*/manifest.json"))
    values = json.loads(reference.read_text())
    os.remove(reference)
    reference.write_bytes(Manifest.loads(json.dumps({**values, "title": "another", "provenance": {}}).encode()).dumps())
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 0
    assert f"was made from an earlier reference (reference/{reference.parent.name}), which has changed since" in printed
    os.remove(reference)
    reference.write_text("{}")
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 1
    assert f"(reference/{reference.parent.name}): manifest.json: This is not a manifest" in printed
    shutil.rmtree(tmp_path / "store")


def test_verify_names_a_source_that_has_changed(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for number in range(20):
        folder = tmp_path / "images" / "train" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + number).save(folder / f"{number}.png")
    (tmp_path / "mine.yaml").write_text(
        "extends: digits/G\nname: mine/G\ndata: {format: images, source: images, resolution: 8}\nnetwork: {image_channels: 3}\n"
    )
    (tmp_path / "e.yaml").write_text("name: mine\nrecipes: [mine.yaml]\nepochs: [1]\nmetrics: []\n")
    only = edm2(tmp_path, "plan", "e.yaml", "--json")[1].splitlines()[0]
    task = json.loads(only)
    code, printed = edm2(tmp_path, "run", "e.yaml", "--store", "store", "--only", f"{task['stage']}/{task['key']}")
    assert code == 0, printed
    assert edm2(tmp_path, "verify", "store")[0] == 0
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "train" / "1" / "1.png")
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 1
    assert f"{tmp_path / 'images'} is sha256:" in printed
