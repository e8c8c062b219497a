"""A training that gets another number of pods while it runs: it goes on from its last step, to the same weights but for rounding.

`EDM2_TEST_CHANGES=50` makes that many changes, between one and four pods, instead of two.
"""

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.launcher.cluster import Cluster
from components.launcher.job_kinds import KINDS
from components.launcher.resizing import SIZE
from edm2core.plan.manifest import Manifest
from edm2core.store import Store, open_store
from tests.cluster.lab import Lab, difference, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CHANGES = int(os.environ.get("EDM2_TEST_CHANGES", "2"))
MOST = 2 if CHANGES == 2 else 4  # pods
STEPS = 40  # between a change and the next one, at least


@pytest.mark.timeout(900 + 60 * CHANGES)
@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_a_training_goes_on_with_as_many_pods_as_somebody_asks_for(
    lab: Lab, tmp_path: Path, job: str, record_property: Callable[[str, object], None]
) -> None:
    epochs, chance = 10 + 5 * CHANGES, random.Random(0)  # so many epochs that the training cannot end between changes
    profile, (training,) = lab.fresh([epochs], job=job, resources={"snapshot": {"nodes": {"min": 1, "max": MOST}}})
    follower = lab.follow(training, profile)
    cluster, size, begun, after, seconds = Cluster.connect(profile), MOST, 0, 0.0, list[float]()
    for _ in range(CHANGES):
        reached = follower.wait_for_step(begun + STEPS, after=after)["step"]
        before, size = size, chance.choice([other for other in range(1, MOST + 1) if other != size])
        when = time.time()
        cluster.patch_job(follower.spec.name, {"metadata": {"annotations": {SIZE: str(size)}}})
        restart = follower.wait_for("restart", after=when)
        assert restart["step"] >= reached  # no step is lost
        begun, after = restart["step"], restart["time"]
        seconds.append(round(after - when, 1))
        load = os.getloadavg()[0]
        print(f"{job}: training again with {size} pods instead of {before} after {seconds[-1]} s; load {load:.0f}", flush=True)
        until(lambda size=size: True if len(follower.pod_names(*range(MOST))) == size else None, 30, lambda: str(follower.pods()))
    print(f"{job}, seconds of {CHANGES} changes, sorted: {sorted(seconds)}", flush=True)
    record_property("seconds", seconds)
    here = open_store(str(tmp_path / "here"))
    lab.here(lab.tasks([epochs])[0], here)
    manifest, undisturbed = follower.done(900), lab.here(training, here, processes=2)
    assert difference(follower.store, manifest, here, undisturbed, tmp_path) < 1e-3
    curve, expected = losses(follower.store, manifest), losses(here, undisturbed)
    assert curve.keys() == expected.keys()  # it stays one curve
    whole = [step for step, loss in curve.items() if loss is not None]
    assert len(whole) > len(curve) / 4
    assert [curve[step] for step in whole] == pytest.approx([expected[step] for step in whole], rel=1e-3)


def losses(store: Store, manifest: Manifest) -> dict[int, float | None]:
    """The mean losses of a snapshot's curve by their last steps; None where the training began again among the steps of a mean."""
    found, begun_again = dict[int, float | None](), False
    for row in map(json.loads, store.read(manifest.path("curve.jsonl")).decode().splitlines()):
        if row.get("restart"):
            begun_again = True
        elif "loss" in row:
            found[row["step"]], begun_again = None if begun_again else row["loss"], False
    return found
