"""Event files of a real training, as TensorBoard serves them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edm2core.store.local import LocalStore
from pipelines.boards import bring

TINY = """
name: tiny
recipes: [digits/G]
epochs: [1]
metrics: []
probe: false
overrides: {network.multipliers: [1], network.attention_resolutions: [], training.batch: 256}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "e.yaml").write_text(TINY)
    subprocess.run([sys.executable, "-m", "pipelines.cli.main", "run", "e.yaml", "--store", "store"], cwd=folder, check=True, timeout=240)
    return folder


def test_each_training_has_a_folder_by_its_name_and_what_grows_is_brought_again(folder: Path, tmp_path: Path) -> None:
    store = LocalStore(folder / "store")
    assert bring(store, tmp_path) == 1
    (file,) = tmp_path.glob("digits-G-seed0-*/*tfevents*")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    bring(store, tmp_path)
    assert file.read_bytes() == whole


def test_tensorboard_serves_the_loss(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli.main", "tensorboard", "store", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        (tags,) = _json(f"http://localhost:{port}/data/plugin/scalars/tags", server).values()
        assert {"loss", "lr"} <= tags.keys()
    finally:
        server.terminate()
        server.wait(30)
    with pytest.raises(urllib.error.URLError):  # TensorBoard has ended too
        urllib.request.urlopen(f"http://localhost:{port}/")


def _json(url: str, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url) as answer:
                found: dict[str, Any] = json.load(answer)
                if found:
                    return found
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url} gave nothing")


def test_a_store_without_trainings_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli.main", "tensorboard", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert "No training has written event files" in ran.stderr
