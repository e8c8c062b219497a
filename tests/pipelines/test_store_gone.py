"""A store that is deleted while a run is at work in it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

EXPERIMENT = """\
name: gone
recipes: [digits/C]
epochs: [400]
metrics: []
probe: false
overrides: {training.epochs: 400}
"""


@pytest.mark.slow
def test_a_run_whose_store_is_deleted_says_so_and_ends(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    store = tmp_path / "store"
    command = [sys.executable, "-m", "pipelines.cli.main", "run", str(tmp_path / "e.yaml"), "--store", str(store)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: list(store.glob("leases/trajectory/*/*")), 120)
    shutil.rmtree(store, ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)  # what was just being written
    printed, _ = run.communicate(timeout=90)
    assert run.returncode == 1
    assert "The store's folder is gone" in printed
    assert "should not have happened" not in printed
    assert "Traceback" not in printed
    assert not store.exists()
