"""Training as a job of two pods, of either kind."""

from pathlib import Path

import pytest

from components.launcher.job_kinds import KINDS
from components.launcher.log_store import read_record
from edm2core.errors import Interrupted
from edm2core.store import open_store
from tests.cluster.lab import EPOCHS, Lab, Undisturbed, difference, kubectl

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_two_pods_train_what_two_processes_here_do(lab: Lab, tmp_path: Path, job: str) -> None:
    prepare = lab.tasks([1])[0]
    profile, (first, second) = lab.fresh([2, 4], job=job)
    follower = lab.follow(first, profile)
    manifest = follower.done()
    assert manifest.provenance["world_size"] == 2
    follower = lab.follow(second, profile, run=follower.record.id)
    manifest = follower.done()
    here = open_store(str(tmp_path / "store"))
    lab.here(prepare, here)
    same = lab.here(second, here, processes=2)
    assert difference(follower.store, manifest, here, same, tmp_path) < 1e-3
    lines = read_record(follower.store, follower.logs)
    assert {line.text[:8] for line in lines if " works on " in line.text} == {"[rank 0]", "[rank 1]"}
    assert sum('"ref":"snapshot/' in line.text for line in lines) == 2


def test_a_training_that_moves_to_the_other_kind_of_job_has_the_result_of_one_that_does_not(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    profile, (training,) = lab.fresh([EPOCHS])
    before = lab.follow(training, profile)
    before.wait_for_step(92)
    before.stop.set()
    before.backend.stop(before.spec.name, profile.grace_s)
    with pytest.raises(Interrupted):
        before.done()
    after = lab.follow(training, profile.model_copy(update={"job": "trainjob"}), run=before.record.id)
    assert after.wait_for("restart")["step"] >= 92
    manifest = after.done()
    assert manifest.provenance["world_size"] == 2
    assert difference(after.store, manifest, *undisturbed, tmp_path) < 1e-3
    assert kubectl("-n", lab.namespace, "get", "pytorchjobs", "-o", "name") == ""
