"""What goes wrong while a job runs: it goes on, to the same weights."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.launcher.cluster import Cluster
from components.launcher.job_kinds import KINDS
from components.launcher.log_store import log_folder, read_record
from edm2core.errors import Interrupted
from edm2core.store import open_store
from tests.cluster.lab import EPOCHS, Lab, Undisturbed, difference, kubectl, until

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("job", "killed"),
    [pytest.param(kind.word, (1,)) for kind in KINDS]
    + [pytest.param(kind.word, killed, marks=pytest.mark.slow) for kind in KINDS for killed in ((0,), (0, 1))],
)
def test_a_killed_pod_is_replaced_and_training_goes_on_from_the_last_state(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path, job: str, killed: tuple[int, ...], record_property: Callable[[str, object], None]
) -> None:
    profile, (training,) = lab.fresh([EPOCHS], job=job)
    follower = lab.follow(training, profile)
    follower.wait_for_step(92)
    when = follower.kill(*killed)
    restart = follower.wait_for("restart", after=when)
    assert restart["step"] > 0
    print(f"from a pod's death to training again: {restart['time'] - when:.1f} s")
    record_property("seconds_to_training_again", round(restart["time"] - when, 1))
    assert difference(follower.store, follower.done(), *undisturbed, tmp_path) < 1e-3


@pytest.mark.slow
def test_ten_kills_at_random_moments_cost_only_time(lab: Lab, tmp_path: Path) -> None:
    epochs = 60  # so many that it cannot end between kills
    here = open_store(str(tmp_path / "here"))
    lab.here(lab.tasks([epochs])[0], here)
    profile, (training,) = lab.fresh([epochs])
    manifest = lab.here(training, here, processes=2)
    follower = lab.follow(training, profile)
    chance = random.Random(0)
    for kill in range(10):
        time.sleep(chance.uniform(2, 28))  # of which a new pod needs about ten to train
        assert not follower.ended, follower.error
        victims = chance.choice([(0,), (1,), (0, 1)])
        print(f"kill {kill + 1}: pods {victims}")
        follower.kill(*victims)
    assert difference(follower.store, follower.done(900), here, manifest, tmp_path) < 1e-3


@pytest.mark.parametrize("job", [pytest.param(kind.word, marks=[pytest.mark.slow] if kind is not KINDS[0] else []) for kind in KINDS])
def test_a_killed_follower_is_replaced_by_one_that_adopts_the_job_and_its_logs(lab: Lab, job: str) -> None:
    profile, (training,) = lab.fresh([30], job=job)
    arguments = [json.dumps(training.to_json()), profile.dumps(), "adopted"]
    lab.require(profile)
    first = subprocess.Popen([sys.executable, "-m", "tests.cluster.follow", *arguments], cwd=Path(__file__).parents[2])
    store, logs = open_store(profile.store.uri), log_folder("adopted", training)
    until(lambda: any("progress" in line.text for line in read_record(store, logs)) or None, 120, lambda: "nothing is kept")
    first.kill()
    first.wait()
    (before,) = Cluster.connect(profile).jobs()
    assert before["kind"].lower() == job
    kept = len(read_record(store, logs))
    time.sleep(8)  # in which the job prints on
    follower = lab.follow(training, profile, "adopted")
    follower.done()
    assert follower.job()["metadata"]["uid"] == before["metadata"]["uid"]
    lines = read_record(store, logs)
    assert len(lines) > kept
    assert any('"ref":"snapshot/' in line.text for line in lines)
    printed = follower.printed()  # by pods that are still there: of a TrainJob's pods only the first that has ended may be
    assert len(printed) == 2 if job == "pytorchjob" else printed
    for pod, text in printed.items():
        recorded = [line.text for line in lines if line.pod.startswith(f"{pod}/")]
        assert recorded == text[: len(recorded)]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_process_is_noticed_and_training_goes_on(lab: Lab, undisturbed: Undisturbed, tmp_path: Path, rank: int) -> None:
    profile, (training,) = lab.fresh([EPOCHS])
    follower = lab.follow(training, profile)
    follower.wait_for_step(92)
    follower.inside(rank, "[os.kill(p, signal.SIGSTOP) for p in stage()]")
    when = time.time()
    hung = until(
        lambda: next((e for e in list(follower.events) if "hangs" in str(e.get("message"))), None), 60, lambda: str(follower.events[-9:])
    )
    print(f"noticed after {hung['time'] - when:.1f} s")
    restart = follower.wait_for("restart", after=when)
    print(f"training again after {restart['time'] - when:.1f} s")
    assert difference(follower.store, follower.done(), *undisturbed, tmp_path) < 1e-3


@pytest.mark.slow
def test_a_drained_node_leaves_a_state_of_the_step_it_stopped_at(lab: Lab, undisturbed: Undisturbed, tmp_path: Path) -> None:
    profile, (training,) = lab.fresh([EPOCHS])
    follower = lab.follow(training, profile)
    follower.wait_for_step(69)
    for name in follower.pod_names(0, 1):
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": lab.namespace}}

        kubectl("create", "--raw", f"/api/v1/namespaces/{lab.namespace}/pods/{name}/eviction", "-f", "-", text=json.dumps(eviction))
    when = time.time()
    stopped = follower.wait_for("interrupted")
    restart = follower.wait_for("restart", after=when)
    assert f"step {restart['step']} " in stopped["message"]
    assert stopped["time"] - when < profile.grace_s
    assert difference(follower.store, follower.done(), *undisturbed, tmp_path) < 1e-3


@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_a_cancelled_job_leaves_no_pod_and_a_state_to_go_on_from(lab: Lab, undisturbed: Undisturbed, tmp_path: Path, job: str) -> None:
    profile, (training,) = lab.fresh([EPOCHS], job=job)
    follower = lab.follow(training, profile)
    follower.wait_for_step(69)
    follower.stop.set()
    follower.backend.stop(follower.spec.name, profile.grace_s)
    assert follower.pods() == []
    with pytest.raises(Interrupted):
        follower.done()
    uid = follower.job()["metadata"]["uid"]
    again = lab.follow(training, profile)
    assert again.wait_for("restart")["step"] >= 69
    assert follower.job()["metadata"]["uid"] == uid
    assert difference(again.store, again.done(), *undisturbed, tmp_path) < 1e-3


@pytest.mark.slow
def test_two_runs_share_one_job_and_stopping_one_leaves_it_to_the_other(lab: Lab) -> None:
    profile, (training,) = lab.fresh([EPOCHS])
    one, two = lab.follow(training, profile), lab.follow(training, profile)
    one.wait_for_step(46)
    two.wait_for_step(46)
    time.sleep(3)
    one.stop.set()
    one.backend.stop(one.spec.name, profile.grace_s)
    assert len(two.pods()) == 2
    manifest = two.done()
    assert not [event for event in two.events if event["kind"] == "restart"]
    assert manifest.provenance["generation"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_running_out_of_memory_again_and_again_fails_the_task(lab: Lab, job: str) -> None:
    profile, (training,) = lab.fresh([EPOCHS], job=job, resources={"snapshot": {"memory": "200Mi"}})
    follower = lab.follow(training, profile)
    with pytest.raises(Exception, match=r"OOMKilled.* 4 times without a newer state"):
        follower.done()
    until(lambda: [] if not follower.pods() else None, 60, lambda: "pods are left")
