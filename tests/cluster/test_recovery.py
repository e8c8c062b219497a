"""How long a training stands still when a pod is killed, and what for, over many kills.

`make recovery` measures 20 kills for each kind of job, and prints a table.
"""

import json
import os
import random
import statistics
import time
from collections.abc import Callable
from datetime import datetime
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
    parts = list[dict[str, float]]()
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
        now = until(lambda: found if len(found := uids(follower)) == 2 else None, 60, lambda: "a pod is missing")
        parts.append(reached(follower, kill % 2, when) | {"training": seconds[-1]})
        said = ", ".join(f"{what} {second:.1f}" for what, second in parts[-1].items())
        print(f"{job}, pod {kill % 2}, seconds since its death: {said}; load {loads[-1]}", flush=True)
        assert now[survivor] == before[survivor]
        assert now[kill % 2] != before[kill % 2]
    medians = {what: round(statistics.median(part[what] for part in parts), 1) for what in parts[0]}
    found = {"median": statistics.median(seconds), "worst": max(seconds), "seconds": seconds, "loads": loads, "medians": medians}
    print(json.dumps(found))
    print(row(job, seconds, loads, medians))
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


def reached(follower: Follower, index: int, when: float) -> dict[str, float]:
    """Seconds from a pod's death until its loss was noticed, its successor was made and begun, and the processes had met."""
    (pod,) = [pod for pod in follower.pods() if pod["metadata"]["name"] in follower.pod_names(index)]
    begun = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    times = {
        "noticed": next((e["time"] for e in follower.events if e.get("time", 0) > when and "has lost" in str(e.get("message"))), when),
        "made": datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp(),
        "begun": datetime.fromisoformat(begun).timestamp(),
        "met": follower.wait_for("rendezvous", after=when)["time"],
    }
    return {what: round(max(0.0, second - when), 1) for what, second in times.items()}


def row(job: str, seconds: list[float], loads: list[float], medians: dict[str, float]) -> str:
    """The measurement as a row of the table in docs/how-to/cluster.md."""
    each = ", ".join(f"{second:.0f}" for second in sorted(seconds))
    load = f"{min(loads):.0f} to {max(loads):.0f}"
    steps = " | ".join(f"{medians[what]:.1f}" for what in ("noticed", "made", "begun", "met"))
    return f"| {job} | {len(seconds)} | {each} | {steps} | {statistics.median(seconds):.1f} | {max(seconds):.1f} | {load} |"
