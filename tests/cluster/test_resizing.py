"""A training that gets another number of pods while it runs: it goes on from its last step, to the same weights but for rounding."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.launcher.cluster import Cluster
from components.launcher.job_kinds import KINDS
from components.launcher.resizing import SIZE
from tests.cluster.lab import EPOCHS, Lab, Undisturbed, difference, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_a_training_goes_on_with_as_many_pods_as_somebody_asks_for(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path, job: str, record_property: Callable[[str, object], None]
) -> None:
    profile, (training,) = lab.fresh([EPOCHS], job=job, resources={"snapshot": {"nodes": {"min": 1, "max": 2}}})
    follower = lab.follow(training, profile)
    cluster, after, seconds = Cluster.connect(profile), 0.0, list[float]()
    for nodes, step in ((1, 46), (2, 92)):
        reached = follower.wait_for_step(step, after=after)["step"]
        when = time.time()
        cluster.patch_job(follower.spec.name, {"metadata": {"annotations": {SIZE: str(nodes)}}})
        restart = follower.wait_for("restart", after=when)
        assert restart["step"] >= reached  # no step is lost
        after = restart["time"]
        seconds.append(round(after - when, 1))
        print(f"{job}: training again with {nodes} pods after {seconds[-1]} s", flush=True)
        until(lambda size=nodes: True if len(follower.pod_names(0, 1)) == size else None, 30, lambda: str(follower.pods()))
    record_property("seconds", seconds)
    assert difference(follower.store, follower.done(), *undisturbed, tmp_path) < 1e-3
