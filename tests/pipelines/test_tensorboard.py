"""Event files of a real training, as TensorBoard serves them."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from edm2core.store import Store
from edm2core.store.local import LocalStore
from pipelines.cli.tensorboard import Boards
from tests.edm2core.store.conftest import seaweedfs, seaweedfs_server  # noqa: F401
from tests.pipelines.conftest import TINY
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "e.yaml").write_text(TINY)
    subprocess.run([sys.executable, "-m", "pipelines.cli.main", "run", "e.yaml", "--store", "store"], cwd=folder, check=True, timeout=240)
    return folder


def test_each_training_has_a_folder_by_its_name_and_what_grows_is_brought_again(folder: Path, tmp_path: Path) -> None:
    boards = Boards(LocalStore(folder / "store"), tmp_path)
    assert boards.bring() == 2  # the training's file, and one result
    (file,) = tmp_path.glob("digits-G-seed0-*/*tfevents*")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    boards.bring()
    boards.close()
    assert file.read_bytes() == whole


def test_tensorboard_serves_the_loss(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli.main", "tensorboard", "store", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        tags = _json(f"http://localhost:{port}/data/plugin/scalars/tags", server, 2)
        training, evaluation = sorted(tags)
        assert evaluation == f"{training}/evaluation"
        assert {"loss", "lr"} <= tags[training].keys()
        assert tags[evaluation].keys() == {"fd_filters"}
        points = _json(f"http://localhost:{port}/data/plugin/scalars/scalars?run={quote(evaluation, safe='')}&tag=fd_filters", server)
        results = json.loads(next(folder.glob("store/runs/*/results.json")).read_text())["results"]
        assert [(step, pytest.approx(value)) for _, step, value in points] == [(1, results[0]["value"])]
    finally:
        server.terminate()
        server.wait(30)
    with pytest.raises(urllib.error.URLError):  # TensorBoard has ended too
        urllib.request.urlopen(f"http://localhost:{port}/")


def _json(url: str, server: subprocess.Popen[bytes], least: int = 1) -> Any:

    def answered() -> Any:
        assert server.poll() is None
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url) as answer:
            found = json.load(answer)
            return found if len(found) >= least else None

    return wait_until(answered, 120, failing=lambda: f"{url} gave nothing")


def test_a_store_without_trainings_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("runs/empty/plan.json", b'{"name": "empty", "tasks": []}')
    for where, words in ((store.uri, "No training has written event files"), (str(tmp_path / "ghost"), "no store here")):
        ran = subprocess.run(
            [sys.executable, "-m", "pipelines.cli.main", "tensorboard", where], capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 2
        assert words in ran.stderr


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        command = [sys.executable, "-m", "pipelines.cli.main", "tensorboard", "store", "--port", str(taken.getsockname()[1])]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert "cannot be listened at" in ran.stderr


def test_a_bucket_is_brought_like_a_folder(folder: Path, tmp_path: Path, seaweedfs: Store) -> None:  # noqa: F811
    store = LocalStore(folder / "store")
    for prefix in ("runs/", "results/metrics/", "scratch/trajectory/"):
        for entry in store.list(prefix):
            seaweedfs.write(entry.path, store.read(entry.path))
    boards = Boards(seaweedfs, tmp_path)
    assert boards.bring() == 2
    boards.close()
    assert len(list(tmp_path.glob("digits-G-seed0-*/*tfevents*"))) == 1
    assert len(list(tmp_path.glob("digits-G-seed0-*/evaluation/*tfevents*"))) == 1
