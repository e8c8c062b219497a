"""How long a training stands still when a pod is killed, and what for, over many kills.

`make recovery` measures 20 kills for each kind of job, and prints a table.
"""

import os
import random
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from components.launcher.job_kinds import KINDS, JobKind
from edm2core.plan.tasks import trajectory_ref
from edm2core.store import open_store
from edm2core.store.scratch import Scratch
from edm2core.worker.rendezvous import rendezvous_of
from tests.cluster.lab import Follower, Lab, difference, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
KILLS = int(os.environ.get("EDM2_TEST_KILLS", "4"))
MEASURES = "EDM2_TEST_KILLS" in os.environ


@pytest.mark.timeout(300 + 120 * KILLS)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.word for kind in KINDS])
def test_a_training_goes_on_after_each_of_many_kills_with_the_pod_that_stays_where_a_new_one_comes_at_once(
    lab: Lab, tmp_path: Path, kind: JobKind, record_property: Callable[[str, object], None]
) -> None:
    epochs = 30 * KILLS  # so many that the training cannot end between kills
    chance, parts, loads = random.Random(0), list[dict[str, float]](), list[float]()
    profile, (training,) = lab.fresh([epochs], job=kind.word, rejoin_s=60)
    follower, after = lab.follow(training, profile), 0.0
    for kill in range(KILLS):
        follower.wait_for_step(1, after=after)
        time.sleep(chance.uniform(6, 12))  # so long that a state is saved
        lost, stays = kill % 2, 1 - kill % 2
        before = uids(follower)
        when = follower.kill(lost)
        after = follower.wait_for("restart", after=when)["time"]
        now = both_of(follower)
        assert (now[stays] == before[stays]) is kind.replaces_at_once
        assert now[lost] != before[lost]
        loads.append(round(os.getloadavg()[0], 1))
        parts.append(reached(follower, lost, when) | {"training": round(after - when, 1)})
        said = ", ".join(f"{what} {second:.1f}" for what, second in parts[-1].items())
        print(f"{kind.word}, pod {lost}, seconds since its death: {said}; load {loads[-1]}", flush=True)
    met = rendezvous_of(Scratch(follower.store, trajectory_ref(training).scratch, 1))
    assert len(met) == KILLS + 1
    print(row(kind.name, parts, loads))
    record_property("recovery", {"seconds": parts, "loads": loads})
    if MEASURES:
        follower.stop.set()
        follower.backend.stop(follower.spec.name, profile.grace_s)
    else:
        here = open_store(str(tmp_path / "here"))
        lab.here(lab.tasks([epochs])[0], here)
        manifest = lab.here(training, here, processes=2)
        assert difference(follower.store, follower.done(900), here, manifest, tmp_path) < 1e-3


def uids(follower: Follower) -> dict[int, str]:
    """The uids of the job's pods that were not told to end, by their indices."""
    there = [pod["metadata"] for pod in follower.pods() if "deletionTimestamp" not in pod["metadata"]]
    return {int(follower.kind.pod_index(pod["name"])): pod["uid"] for pod in there}


def both_of(follower: Follower) -> dict[int, str]:
    """The uids of both pods, once they are there."""
    return dict(until(lambda: found if len(found := uids(follower)) == 2 else None, 60, lambda: "a pod is missing"))


def reached(follower: Follower, index: int, when: float) -> dict[str, float]:
    """Seconds from a pod's death until the other one noticed, if it stays, its successor was made and begun, and all had met."""
    (pod,) = [pod for pod in follower.pods() if pod["metadata"]["name"] in follower.pod_names(index)]
    begun = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    said = [e["time"] for e in follower.events if e.get("time", 0) > when and "has lost" in str(e.get("message"))]
    times = {
        **({"noticed": said[0]} if said else {}),
        "made": datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp(),
        "begun": datetime.fromisoformat(begun).timestamp(),
        "met": follower.wait_for("rendezvous", after=when)["time"],
    }
    return {what: round(max(0.0, second - when), 1) for what, second in times.items()}


def row(job: str, parts: list[dict[str, float]], loads: list[float]) -> str:
    """The measurement as a row of the table in docs/operations.md."""
    seconds = sorted(part["training"] for part in parts)
    each = ", ".join(f"{second:.0f}" for second in seconds)
    known = {what: [part[what] for part in parts if what in part] for what in ("noticed", "made", "begun", "met")}
    steps = " | ".join(f"{statistics.median(values):.1f}" if values else "–" for values in known.values())
    load = f"{min(loads):.0f} to {max(loads):.0f}"
    return f"| {job} | {len(seconds)} | {each} | {steps} | {statistics.median(seconds):.1f} | {seconds[-1]:.1f} | {load} |"
