"""How long a training stands still when a pod is killed, over many kills: `EDM2_TEST_KILLS=20 pytest -s tests/cluster/test_recovery.py`."""

import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.launcher.job_kinds import KINDS
from edm2core.plan.tasks import trajectory_ref
from edm2core.store import open_store
from edm2core.store.scratch import Scratch
from edm2core.worker.rendezvous import rendezvous_of
from tests.cluster.lab import Follower, Lab, difference, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
KILLS = int(os.environ.get("EDM2_TEST_KILLS", "4"))


@pytest.mark.timeout(300 + 90 * KILLS)
@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_a_killed_pod_alone_is_replaced_and_the_other_one_goes_on_with_it(
    lab: Lab, tmp_path: Path, job: str, record_property: Callable[[str, object], None]
) -> None:
    epochs = 30 * KILLS  # so many that it cannot end between kills
    profile, (training,) = lab.fresh([epochs], job=job, rejoin_s=60)
    follower, chance, seconds, loads = lab.follow(training, profile), random.Random(0), list[float](), list[float]()
    after = 0.0
    for kill in range(KILLS):
        follower.wait_for_step(1, after=after)
        time.sleep(chance.uniform(6, 12))  # so long that a state is saved
        survivor = 1 - kill % 2
        before = uids(follower)
        when = follower.kill(kill % 2)
        restart = follower.wait_for("restart", after=when)
        after = restart["time"]
        seconds.append(round(after - when, 1))
        loads.append(round(os.getloadavg()[0], 1))
        print(f"{job}, pod {kill % 2}: {seconds[-1]} s from its death to training again; load {loads[-1]}", flush=True)
        now = until(lambda: found if len(found := uids(follower)) == 2 else None, 60, lambda: "a pod is missing")
        assert now[survivor] == before[survivor]
        assert now[kill % 2] != before[kill % 2]
    found = {"median": statistics.median(seconds), "worst": max(seconds), "seconds": seconds, "loads": loads}
    print(json.dumps(found))
    record_property("recovery", found)
    met = rendezvous_of(Scratch(follower.store, trajectory_ref(training).scratch, 1))
    assert len(met) == KILLS + 1
    if os.environ.get("EDM2_TEST_KILLS"):
        follower.stop.set()
        follower.backend.stop(follower.spec.name, profile.grace_s)
        return  # only measured
    here = open_store(str(tmp_path / "here"))
    lab.here(lab.tasks([epochs])[0], here)
    manifest = lab.here(training, here, processes=2)
    assert difference(follower.store, follower.done(900), here, manifest, tmp_path) < 1e-3


def uids(follower: Follower) -> dict[int, str]:
    """The uids of the job's pods that were not told to end, by their indices."""
    there = [pod["metadata"] for pod in follower.pods() if "deletionTimestamp" not in pod["metadata"]]
    return {int(follower.kind.pod_index(pod["name"])): pod["uid"] for pod in there}
