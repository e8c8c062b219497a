"""Training as a PyTorchJob of two pods."""

from pathlib import Path

import pytest

from components.launcher.log_store import read_record
from edm2core.store import open_store
from tests.cluster.lab import Lab, difference

pytestmark = pytest.mark.cluster


def test_two_pods_train_what_two_processes_here_do(lab: Lab, tmp_path: Path) -> None:
    prepare, first, second = lab.tasks([2, 4])
    follower = lab.follow(first)
    manifest = follower.done()
    assert manifest.provenance["world_size"] == 2
    follower = lab.follow(second, run=follower.record.id)
    manifest = follower.done()
    here = open_store(str(tmp_path / "store"))
    lab.here(prepare, here)
    same = lab.here(second, here, processes=2)
    assert difference(follower.store, manifest, here, same, tmp_path) < 1e-3
    lines = read_record(follower.store, follower.logs)
    assert {line.text[:8] for line in lines if " works on " in line.text} == {"[rank 0]", "[rank 1]"}
    assert sum('"ref":"snapshot/' in line.text for line in lines) == 2
