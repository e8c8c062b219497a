"""Jobs of a cluster that lives in memory: what is started, adopted, resumed, left and stopped, by which requests."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from components.launcher import cluster, cluster_backend, follower, followers, gathering
from components.launcher.cluster import ClusterError, refusal
from components.launcher.cluster_backend import ClusterBackend
from components.launcher.follower import MADE_WAY
from components.launcher.followers import FOLLOWER
from components.launcher.job import DIGEST, merged
from components.launcher.job_kinds import KINDS, JobKind
from components.launcher.profile import Profile
from components.launcher.resizing import RESIZES, SIZE
from components.launcher.spec import JobSpec, Status, spec_of
from edm2core.plan.tasks import Task
from edm2core.store.local import LocalStore
from edm2core.store.runs import Run
from tests.waiting import TurnedClock

PYTORCHJOB, TRAINJOB = KINDS
Object = dict[str, Any]
Profiles = Callable[..., Profile]


class Memory:
    """Jobs and pods; a job that is not suspended has all its pods running, unless there is room for fewer."""

    record: Run  # the run that its jobs are for

    def __init__(self, kind: JobKind = PYTORCHJOB) -> None:
        self.kind = kind
        self.others: list[Memory] = []
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.room = 99
        self.pod_states: dict[str, Object] = {}
        self.found: list[Object] = []
        self.queued: list[Object] = []
        self.made = 0
        self.refusal: ClusterError | None = None

    def with_other_kinds(self) -> list["Memory"]:
        return self.others

    def job(self, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get(name))

    def jobs(self) -> list[Object]:
        return [copy.deepcopy(job) for job in self.objects.values()]

    def create_job(self, job: Object) -> bool:
        self.requests.append(("create", job["metadata"]["name"], job))
        if job["metadata"]["name"] in self.objects:
            return False
        self.made += 1
        job = copy.deepcopy(job)
        job["metadata"] |= {"uid": f"uid-{self.made}", "creationTimestamp": f"2026-01-01T00:00:{self.made:02d}Z", "resourceVersion": "1"}
        self.objects[job["metadata"]["name"]] = {**job, "status": {}}
        return True

    def patch_job(self, name: str, change: Object) -> bool:
        self.requests.append(("patch", name, change))
        if name not in self.objects:
            return False
        version = str(int(self.objects[name]["metadata"]["resourceVersion"]) + 1)
        self.objects[name] = merged(self.objects[name], merged(change, {"metadata": {"resourceVersion": version}}))
        return True

    def delete_job(self, name: str, seen: Object | None = None) -> bool:
        self.requests.append(("delete", name, None))
        job = self.objects.get(name)
        if job is None or (seen and any(seen["metadata"][part] != job["metadata"][part] for part in ("uid", "resourceVersion"))):
            return False
        del self.objects[name]
        return True

    def pods(self, job: str) -> list[Object]:
        found = self.objects.get(job)
        if found is None:  # pods of a lost node outlive their job
            return [self._pod(name) for name, state in self.pod_states.items() if "deletionTimestamp" in state.get("metadata", {})]
        if self.kind.is_suspended(found) or found["status"]:
            return []
        names = [self.pod_name(job, index) for index in range(self.kind.pods_wanted(found))]
        return [self._pod(name) for name in names[: self.room]]

    def pod_name(self, job: str, index: int) -> str:
        return f"{job}-worker-{index}" if self.kind is PYTORCHJOB else f"{job}-node-0-{index}-abcde"

    def pod(self, name: str) -> Object | None:
        return None

    def remove_pod(self, name: str, uid: str) -> bool:
        self.requests.append(("remove", name, uid))
        if self.refusal:
            raise self.refusal
        self.pod_states[name] = {"metadata": {"uid": f"{uid}-next"}}
        return True

    def workloads(self, job: str) -> list[Object]:
        return self.queued

    def events(self) -> list[Object]:
        return self.found

    def _pod(self, name: str) -> Object:
        status = {"phase": "Running", "containerStatuses": []}
        uid = f"{name}-uid"
        return merged({"metadata": {"name": name, "uid": uid}, "spec": {"containers": []}, "status": status}, self.pod_states.get(name, {}))

    def end(self, name: str, condition: str) -> None:
        """End a job with one of PyTorchJob's conditions, or what a TrainJob has in its place."""
        condition = "Complete" if self.kind is TRAINJOB and condition == "Succeeded" else condition
        self.objects[name]["status"] = {"conditions": [{"type": condition, "status": "True", "message": condition}]}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.word)
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Memory:
    for name in ("LOOK_S", "SOON_S", "SIGN_S", "ROOM_S"):
        monkeypatch.setattr(follower, name, 0.0)
    monkeypatch.setattr(cluster_backend, "POLL_S", 0.0)
    memory = Memory(request.param)
    memory.record = Run("demo-1", LocalStore(tmp_path))
    return memory


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TurnedClock:
    """The clock of those who follow a job."""
    turned = TurnedClock()
    for module in (follower, followers, gathering):
        monkeypatch.setattr(module, "time", turned)
    return turned


@pytest.fixture
def spec(tasks: list[Task]) -> JobSpec:
    return spec_of(tasks[1], "s3://bucket/prefix", nodes=2, processes=4)


def backend(memory: Memory, profile: Profile) -> ClusterBackend:
    return ClusterBackend(profile, memory, memory.record)  # type: ignore[arg-type]


def once_it_runs(here: ClusterBackend, spec: JobSpec) -> Status:
    """Where the job stands as soon as all of its pods run."""
    return next(status for _ in range(9) if (status := here.poll(spec.name)).state == "running")


def verbs(memory: Memory) -> list[str]:
    return [verb for verb, _, _ in memory.requests]


def suspended(memory: Memory, spec: JobSpec) -> bool:
    return memory.kind.is_suspended(memory.objects[spec.name])


def test_a_job_is_created_once_and_adopted_by_who_comes_next(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    one, two = backend(memory, profile()), backend(memory, profile())
    one.start(spec)
    two.start(spec)
    assert verbs(memory) == ["create", "patch"]
    assert one.poll(spec.name).state == two.poll(spec.name).state == "running"
    followers = [name for name in memory.objects[spec.name]["metadata"]["annotations"] if name.startswith(FOLLOWER)]
    assert len(followers) == 2


def test_a_job_that_has_ended_is_replaced(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    for condition, state in (("Succeeded", "done"), ("Failed", "failed")):
        here.start(spec)
        memory.end(spec.name, condition)
        assert here.poll(spec.name).state == state
    here.start(spec)
    assert memory.made == 3
    assert here.poll(spec.name).state == "running"


def test_a_job_that_nobody_here_follows_is_absent_once_it_does_not_work(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    backend(memory, profile()).start(spec)
    stranger = backend(memory, profile())
    assert not stranger.poll(spec.name).over
    memory.end(spec.name, "Succeeded")
    assert stranger.poll(spec.name).state == "absent"


def test_stopping_suspends_by_the_first_request_and_starting_resumes_the_same_job(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.poll(spec.name)
    memory.requests.clear()
    here.stop(spec.name, 5)
    assert verbs(memory)[0] == "patch"
    assert suspended(memory, spec)
    backend(memory, profile()).start(spec)
    assert not suspended(memory, spec)
    assert memory.made == 1


def test_a_suspended_job_of_another_profile_is_made_anew(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.stop(spec.name, 5)
    backend(memory, profile(grace_s=7)).start(spec)
    assert memory.made == 2


def test_a_running_job_of_another_profile_is_left_alone(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    backend(memory, profile()).start(spec)
    before = memory.objects[spec.name]["metadata"]["annotations"][DIGEST]
    backend(memory, profile(grace_s=7)).start(spec)
    assert memory.objects[spec.name]["metadata"]["annotations"][DIGEST] == before


def test_stopping_leaves_a_job_that_another_process_follows(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    one, two = backend(memory, profile()), backend(memory, profile())
    one.start(spec)
    two.start(spec)
    one.poll(spec.name)
    memory.requests.clear()
    one.stop(spec.name, 5)
    assert len(memory.requests) == 1
    assert not suspended(memory, spec)
    two.poll(spec.name)
    two.stop(spec.name, 5)
    assert suspended(memory, spec)


def test_a_follower_that_fell_silent_does_not_count(memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock) -> None:
    backend(memory, profile()).start(spec)
    here = backend(memory, profile())
    here.start(spec)
    here.poll(spec.name)
    clock.turn(followers.SILENT_S + 1)
    here.poll(spec.name)
    here.stop(spec.name, 5)
    assert suspended(memory, spec)


def test_an_old_annotation_of_a_follower_that_died_does_not_count(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    here.start(spec)
    memory.patch_job(spec.name, {"metadata": {"annotations": {f"{FOLLOWER}dead": "2020-01-01T00:00:00Z"}}})
    here.poll(spec.name)
    here.poll(spec.name)
    assert f"{FOLLOWER}dead" not in memory.objects[spec.name]["metadata"]["annotations"]
    here.stop(spec.name, 5)
    assert suspended(memory, spec)


def test_a_process_that_is_done_leaves_the_job_and_its_mark_goes(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.close(5)
    assert not suspended(memory, spec)
    assert not [name for name in memory.objects[spec.name]["metadata"]["annotations"] if name.startswith(FOLLOWER)]


def test_a_job_in_a_queue_is_deleted_since_the_queue_would_resume_it(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile(queue="gpus"))
    here.start(spec)
    memory.patch_job(spec.name, memory.kind.suspension(True))  # as the queue does until it is this job's turn
    assert (here.poll(spec.name).state, here.poll(spec.name).reason) == ("queued", "waits in the queue gpus")
    memory.requests.clear()
    here.stop(spec.name, 5)
    assert verbs(memory) == ["delete"]


def test_a_job_that_cannot_be_scheduled_fails_after_the_configured_patience(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes match the selector"}
    memory.pod_states[memory.pod_name(spec.name, 0)] = {"status": {"phase": "Pending", "conditions": [unschedulable]}}
    patient = backend(memory, profile(patience_s=600))
    patient.start(spec)
    assert patient.poll(spec.name).state == "queued"
    assert "match the selector" in patient.poll(spec.name).reason
    hasty = backend(memory, profile(patience_s=0))
    hasty.start(spec)
    memory.objects[spec.name]["metadata"]["annotations"] = {}
    hasty.poll(spec.name)
    status = hasty.poll(spec.name)
    assert (status.state, status.code) == ("failed", 1)
    assert "match the selector" in status.reason
    assert suspended(memory, spec)


def test_what_lacks_room_makes_way_for_an_older_job_and_comes_back(memory: Memory, tasks: list[Task], profile: Profiles) -> None:
    here = backend(memory, profile(patience_s=0))
    older, younger = spec_of(tasks[0], "s3://b"), spec_of(tasks[1], "s3://b", nodes=2)
    here.start(older)
    here.start(younger)
    memory.room = 1
    memory.found = [
        {
            "involvedObject": {"uid": "uid-2", "kind": "Job", "name": f"{younger.name}-node-0"},
            "reason": "FailedCreatePod",
            "message": "exceeded quota: q",
            "metadata": {},
        }
    ]
    for _ in range(3):
        assert here.poll(younger.name).state == "queued"
    assert memory.objects[younger.name]["metadata"]["annotations"][MADE_WAY] == older.name
    assert suspended(memory, younger)
    assert older.name in here.poll(younger.name).reason
    memory.end(older.name, "Succeeded")
    memory.room = 99
    here.poll(younger.name)
    assert not suspended(memory, younger)
    assert here.poll(younger.name).state == "running"


def test_pods_made_again_are_counted_once_for_all_of_them_with_the_first_ones_reason(
    memory: Memory, spec: JobSpec, profile: Profiles
) -> None:
    here = backend(memory, profile())
    here.start(spec)
    assert here.poll(spec.name).restarts == 0
    for index, (code, reason) in enumerate([(137, "OOMKilled"), (143, "Error")]):
        ended = {"name": "pytorch", "state": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": f"{index}"}}}
        memory.pod_states[memory.pod_name(spec.name, index)] = {"status": {"phase": "Failed", "containerStatuses": [ended]}}
    here.poll(spec.name)
    for index in range(2):
        memory.pod_states[memory.pod_name(spec.name, index)] = {"metadata": {"uid": f"new-{index}"}}
    status = once_it_runs(here, spec)
    assert status.restarts == 1
    assert "OOMKilled" in status.reason


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory"}, False),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}, True),
        ({}, True),  # it is only gone
    ],
)
def test_a_restart_for_want_of_a_pod_that_was_taken_away_is_no_fault_of_the_jobs(
    memory: Memory, spec: JobSpec, profile: Profiles, status: Object, lost: bool
) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.poll(spec.name)
    first, second = memory.pod_name(spec.name, 0), memory.pod_name(spec.name, 1)
    peer = {"name": "pytorch", "state": {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": "2"}}}
    memory.pod_states = {first: {"status": status}, second: {"status": {"phase": "Failed", "containerStatuses": [peer]}}}
    here.poll(spec.name)
    memory.pod_states = {name: {"metadata": {"uid": f"new-{name}"}} for name in (first, second)}
    found = once_it_runs(here, spec)
    assert (found.restarts, found.lost) == (1, lost)


def test_an_evicted_pod_that_was_replaced_before_anybody_looked_is_named_all_the_same(
    memory: Memory, spec: JobSpec, profile: Profiles
) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.poll(spec.name)
    first, second = memory.pod_name(spec.name, 0), memory.pod_name(spec.name, 1)
    uid = next(pod["metadata"]["uid"] for pod in memory.pods(spec.name) if pod["metadata"]["name"] == second)
    memory.found = [{"reason": "Evicted", "message": "It used too much.", "involvedObject": {"name": second, "uid": uid}, "metadata": {}}]
    peer = {"name": "pytorch", "state": {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": "2"}}}
    new = {"metadata": {"uid": "new-1"}, "status": {"phase": "Pending"}}
    memory.pod_states = {first: {"status": {"phase": "Failed", "containerStatuses": [peer]}}, second: new}
    here.poll(spec.name)
    memory.pod_states = {name: {"metadata": {"uid": f"new-{name}"}} for name in (first, second)}
    found = once_it_runs(here, spec)
    assert found.restarts == 1
    assert f"{second} was evicted by its node: It used too much." in found.reason


def test_pods_of_a_resumed_job_are_no_restart(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.poll(spec.name)
    memory.patch_job(spec.name, memory.kind.suspension(True))
    here.poll(spec.name)
    memory.patch_job(spec.name, memory.kind.suspension(False))
    for index in range(2):
        memory.pod_states[memory.pod_name(spec.name, index)] = {"metadata": {"uid": f"new-{index}"}}
    assert here.poll(spec.name).restarts == 0


def test_pods_that_their_node_turns_away_are_no_restarts_and_fail_after_the_configured_patience(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile(patience_s=60))
    here.start(spec)
    name = memory.pod_name(spec.name, 0)
    here.poll(spec.name)
    for attempt in range(100):
        turned_away = {"phase": "Failed", "reason": "OutOfpods", "message": "Node didn't have enough resource"}
        between = {"phase": "Pending"}
        memory.pod_states[name] = {"metadata": {"uid": f"try-{attempt}"}, "status": turned_away if attempt % 2 == 0 else between}
        status = here.poll(spec.name)
        assert status.restarts == 0
        if status.over:
            break
        assert "OutOfpods" in status.reason
        clock.turn(2)
    assert 60 <= clock.ahead_s <= 64
    assert (status.state, status.code) == ("failed", 1)
    assert "OutOfpods" in status.reason


def test_a_pod_on_a_node_that_does_not_answer_is_one_restart_however_often_others_begin(
    memory: Memory, spec: JobSpec, profile: Profiles
) -> None:
    here = backend(memory, profile())
    here.start(spec)
    here.poll(spec.name)
    lost = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    memory.pod_states[memory.pod_name(spec.name, 0)] = {"status": {"conditions": lost}, "spec": {"nodeName": "far"}}
    for attempt in range(6):
        memory.pod_states[memory.pod_name(spec.name, 1)] = {"metadata": {"uid": f"again-{attempt}"}}
        status = here.poll(spec.name)
        assert (status.state, status.restarts) == ("queued", 0)
        assert "node far does not answer" in status.reason
    memory.pod_states = {memory.pod_name(spec.name, index): {"metadata": {"uid": f"new-{index}"}} for index in range(2)}
    assert (here.poll(spec.name).state, here.poll(spec.name).restarts) == ("running", 1)  # the loss itself


def test_a_pod_that_a_lost_node_never_ends_is_removed_after_its_grace(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile())
    here.start(spec)
    name = memory.pod_name(spec.name, 1)
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0, "uid": "old"}
    memory.pod_states[name] = {"metadata": leaving, "spec": {"nodeName": "far"}}
    assert "ending on far" in here.poll(spec.name).reason
    assert "remove" not in verbs(memory)
    clock.turn(follower.LEAVE_S + 1)
    assert f"{name} removed" in here.poll(spec.name).reason
    assert ("remove", name, "old") in memory.requests
    once_it_runs(here, spec)


def lacks_a_pod(memory: Memory, spec: JobSpec) -> None:
    """Let the job's second pod find no room."""
    unschedulable = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}
    memory.pod_states[memory.pod_name(spec.name, 1)] = {
        "metadata": {"uid": "new"},
        "status": {"phase": "Pending", "conditions": [unschedulable]},
    }


def test_a_job_whose_lost_pod_gets_no_successor_frees_the_others_and_tries_again_later_and_later(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile(rejoin_s=60))
    here.start(spec)
    assert here.poll(spec.name).state == "running"
    lacks_a_pod(memory, spec)
    here.poll(spec.name)
    clock.turn(59)
    here.poll(spec.name)
    assert not suspended(memory, spec)
    for pause_s in (gathering.SHORTEST_S, 2 * gathering.SHORTEST_S):
        clock.turn(2)
        said = here.poll(spec.name).reason
        assert suspended(memory, spec)
        assert "Insufficient nvidia.com/gpu; its other pods have waited for 60 s and are freed" in said
        here.poll(spec.name)
        clock.turn(pause_s - 1)
        assert "Insufficient" in here.poll(spec.name).reason
        assert suspended(memory, spec)
        clock.turn(2)
        here.poll(spec.name)
        assert not suspended(memory, spec)
        here.poll(spec.name)
        clock.turn(59)
    memory.pod_states.clear()
    assert here.poll(spec.name).state == "running"
    assert here.poll(spec.name).restarts == 0


def test_a_job_that_tries_again_in_vain_fails_after_the_configured_patience(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile(rejoin_s=10, patience_s=300))
    here.start(spec)
    here.poll(spec.name)
    lacks_a_pod(memory, spec)
    begun = clock.ahead_s
    while not (status := here.poll(spec.name)).over:
        clock.turn(5)
        assert clock.ahead_s - begun < 400
    assert clock.ahead_s - begun >= 300
    assert "Insufficient nvidia.com/gpu" in status.reason


def test_a_job_that_begins_waits_for_its_pods_as_long_as_it_takes(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    lacks_a_pod(memory, spec)
    here = backend(memory, profile(rejoin_s=10, patience_s=900))
    here.start(spec)
    for _ in range(20):
        here.poll(spec.name)
        clock.turn(20)
    assert not suspended(memory, spec)


def test_a_job_in_a_queue_that_lacks_a_pod_goes_back_into_the_queue(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile(rejoin_s=60, queue="gpus"))
    here.start(spec)
    here.poll(spec.name)
    lacks_a_pod(memory, spec)
    here.poll(spec.name)
    clock.turn(61)
    status = here.poll(spec.name)
    assert (status.state, status.lost, verbs(memory)[-1]) == ("absent", True, "delete")
    assert "it goes back into the queue" in status.reason


def wants(memory: Memory, spec: JobSpec, nodes: int) -> None:
    """Ask for another number of pods, as `edm2 scale` does."""
    memory.patch_job(spec.name, {"metadata": {"annotations": {SIZE: str(nodes)}}})


def loses_a_pod(memory: Memory, spec: JobSpec) -> None:
    """Let the job's second pod be removed, its successor not yet made."""
    memory.room = 1


@pytest.mark.parametrize("queue", [None, "gpus"])
def test_a_job_whose_operator_would_make_a_lost_pod_late_is_made_again_unless_that_costs_its_place_in_a_queue(
    memory: Memory, spec: JobSpec, profile: Profiles, queue: str | None
) -> None:
    here = backend(memory, profile(queue=queue))
    here.start(spec)
    assert here.poll(spec.name).state == "running"
    before = memory.objects[spec.name]
    loses_a_pod(memory, spec)
    status = here.poll(spec.name)
    memory.room = 99
    if memory.kind.replaces_at_once or queue:
        assert (status.reason, memory.made) == ("1 of 2 pods run", 1)
        return
    assert "its operator would make the new pod late" in status.reason
    assert here.poll(spec.name).reason == "begins with new pods"
    for index in range(2):
        memory.pod_states[memory.pod_name(spec.name, index)] = {"metadata": {"uid": f"new-{index}"}}
    status = here.poll(spec.name)
    assert (status.state, status.restarts, status.lost, memory.made) == ("running", 1, True, 2)
    assert memory.objects[spec.name]["spec"] == before["spec"]
    assert memory.objects[spec.name]["metadata"]["labels"] == before["metadata"]["labels"]


def test_a_job_whose_pods_are_gone_because_somebody_has_suspended_it_just_now_is_not_made_again(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, pods = backend(memory, profile()), memory.pods
    here.start(spec)
    here.poll(spec.name)

    def suspending(job: str) -> list[Object]:
        memory.patch_job(spec.name, memory.kind.suspension(True))
        return pods(job)

    monkeypatch.setattr(memory, "pods", suspending)
    for _ in range(3):
        here.poll(spec.name)
    assert memory.made == 1
    assert suspended(memory, spec)


@pytest.mark.parametrize("queue", [None, "gpus"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_job_gets_the_number_of_pods_that_somebody_asks_for_once_its_state_is_saved(
    memory: Memory, spec: JobSpec, profile: Profiles, nodes: int, queue: str | None
) -> None:
    here = backend(memory, profile(queue=queue))
    here.start(spec)
    before = memory.objects[spec.name]
    wants(memory, spec, nodes)
    assert f"to go on with {nodes} pods instead of 2" in here.poll(spec.name).reason
    assert not memory.pods(spec.name)  # they save their state
    while here.poll(spec.name).state != "running":
        pass
    assert (len(memory.pods(spec.name)), here.poll(spec.name).restarts) == (nodes, 0)
    job = memory.objects[spec.name]
    assert (memory.made == 1) is (memory.kind.resizable and queue is None)
    assert job["metadata"]["labels"] == before["metadata"]["labels"]
    assert RESIZES not in job["metadata"]["annotations"]
    assert any(name.startswith(FOLLOWER) for name in job["metadata"]["annotations"])
    command = json.dumps(job["spec"])
    assert f'"--nnodes", "{nodes}"' in command
    assert '"--nnodes", "2"' not in command


def test_a_job_that_somebody_has_suspended_stays_suspended_whatever_its_size(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    here = backend(memory, profile())
    here.start(spec)
    memory.patch_job(spec.name, memory.kind.suspension(True))
    wants(memory, spec, 1)
    for _ in range(3):
        assert here.poll(spec.name).reason == "suspended"
    assert suspended(memory, spec)


def test_a_training_goes_on_with_the_pods_that_there_are_where_the_profile_allows_it(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile(rejoin_s=60, resources={"snapshot": {"nodes": {"min": 1, "max": 2}}}))
    here.start(spec)
    here.poll(spec.name)
    lacks_a_pod(memory, spec)
    here.poll(spec.name)
    clock.turn(61)
    assert "it goes on with 1 of 2 pods" in here.poll(spec.name).reason
    while here.poll(spec.name).state != "running":
        pass
    assert len(memory.pods(spec.name)) == 1


def test_a_training_with_fewer_pods_tries_again_with_all_of_them_ever_more_seldom(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = backend(memory, profile(rejoin_s=60, resources={"snapshot": {"nodes": {"min": 1, "max": 2}}}))

    def settles() -> int:
        """How many pods the job has once it runs."""
        while here.poll(spec.name).state != "running":
            pass
        return len(memory.pods(spec.name))

    here.start(spec)
    here.poll(spec.name)
    for pause in (600, 1200):
        lacks_a_pod(memory, spec)
        while len(memory.pods(spec.name)) < 2:
            here.poll(spec.name)
        here.poll(spec.name)
        clock.turn(61 if pause == 600 else 31)
        assert "it goes on with 1 of 2 pods" in here.poll(spec.name).reason
        assert settles() == 1
        here.poll(spec.name)
        clock.turn(pause - 10)
        here.poll(spec.name)
        assert settles() == 1
        clock.turn(20)
        assert here.poll(spec.name).reason == "tries to go on with 2 pods again"
    memory.pod_states.clear()
    here.poll(spec.name)
    assert settles() == 2


def test_who_adopts_a_job_that_is_to_try_again_resumes_it(memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock) -> None:
    here = backend(memory, profile(rejoin_s=10))
    here.start(spec)
    here.poll(spec.name)
    lacks_a_pod(memory, spec)
    here.poll(spec.name)
    clock.turn(11)
    here.poll(spec.name)
    assert suspended(memory, spec)
    backend(memory, profile(rejoin_s=10)).start(spec)
    assert not suspended(memory, spec)
    assert gathering.TRIES_AGAIN not in memory.objects[spec.name]["metadata"]["annotations"]


def test_a_follower_that_may_not_remove_a_pod_says_what_does(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LEAVE_S", 0.0)
    memory.refusal = refusal(403, 'pods "x" is forbidden: User "y" cannot delete resource', "delete", "pods", "here")
    here = backend(memory, profile())
    here.start(spec)
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
    memory.pod_states[memory.pod_name(spec.name, 1)] = {"metadata": leaving}
    here.poll(spec.name)
    status = here.poll(spec.name)
    assert status.state == "queued"
    assert f"kubectl delete pod {memory.pod_name(spec.name, 1)} --force" in status.reason


def test_a_job_that_is_stopped_while_it_is_started_does_not_go_on(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, create = backend(memory, profile()), memory.create_job

    def signalled(job: Object) -> bool:
        here.stop(spec.name, 5)
        return create(job)

    monkeypatch.setattr(memory, "create_job", signalled)
    here.start(spec)
    assert suspended(memory, spec)


def test_an_api_server_that_is_away_for_a_while_is_no_failure(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = backend(memory, profile())
    here.start(spec)
    assert here.poll(spec.name).state == "running"

    def away(_name: str) -> Object:
        raise ClusterError("The API server cannot be reached.", 0, where="", do_next="")

    monkeypatch.setattr(memory, "job", away)
    assert here.poll(spec.name).state == "running"


def test_an_error_of_the_server_while_a_job_is_created_is_tried_again(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TrainJob's webhook may answer too late once, on a busy cluster."""
    late, create = [refusal(500, "failed calling webhook: context deadline exceeded", "create", "jobs", "here")], memory.create_job

    def creating(job: Object) -> bool:
        if late:
            raise late.pop()
        return create(job)

    monkeypatch.setattr(memory, "create_job", creating)
    monkeypatch.setattr(cluster, "wait_fixed", lambda _: wait_none())
    backend(memory, profile()).start(spec)
    assert spec.name in memory.objects


def test_a_job_of_another_kind_for_the_same_work_is_removed_before_one_is_created(memory: Memory, spec: JobSpec, profile: Profiles) -> None:
    other = Memory(PYTORCHJOB if memory.kind is TRAINJOB else TRAINJOB)
    other.record = memory.record
    before = backend(other, profile())
    before.start(spec)
    before.close(0)
    memory.others = [other]
    backend(memory, profile()).start(spec)
    assert other.objects == {}
    assert spec.name in memory.objects


def test_a_job_of_another_kind_that_another_process_follows_is_left_alone_in_words(
    memory: Memory, spec: JobSpec, profile: Profiles
) -> None:
    other = Memory(PYTORCHJOB if memory.kind is TRAINJOB else TRAINJOB)
    other.record = memory.record
    backend(other, profile()).start(spec)
    memory.others = [other]
    with pytest.raises(ClusterError, match=f"done as a {other.kind.name}, which another run follows"):
        backend(memory, profile()).start(spec)
    assert spec.name in other.objects
    assert memory.objects == {}


def test_kinds_that_the_cluster_does_not_know_are_in_nobodys_way(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Memory()

    def unknown(_: str) -> Object | None:
        raise refusal(404, "page not found", "get", "jobs", "here")

    monkeypatch.setattr(other, "job", unknown)
    memory.others = [other]
    backend(memory, profile()).start(spec)
    assert spec.name in memory.objects


def test_a_job_that_a_queue_holds_says_why_and_the_queues_name_where_that_may_not_be_read(
    memory: Memory, spec: JobSpec, profile: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = backend(memory, profile(queue="gpus"))
    here.start(spec)
    memory.patch_job(spec.name, memory.kind.suspension(True))
    reserved = {"type": "QuotaReserved", "status": "False", "message": "no room"}
    memory.queued = [{"metadata": {"name": "w"}, "spec": {}, "status": {"conditions": [reserved]}}]
    assert here.poll(spec.name).reason == "waits in the queue gpus: no room"

    def forbidden(_: str) -> list[Object]:
        raise refusal(403, "workloads is forbidden: cannot list", "list", "workloads", "here")

    monkeypatch.setattr(memory, "workloads", forbidden)
    assert here.poll(spec.name).reason == "waits in the queue gpus"


def held_in_a_queue(memory: Memory, spec: JobSpec, profile: Profile) -> ClusterBackend:
    """A follower of a job of four pods that its queue does not admit."""
    here = backend(memory, profile)
    here.start(replace(spec, nodes=4))
    hold(memory, spec)
    here.poll(spec.name)
    return here


def hold(memory: Memory, spec: JobSpec) -> None:
    memory.patch_job(spec.name, memory.kind.suspension(True))


def test_a_training_that_its_queue_holds_too_long_asks_for_half_as_many_pods_down_to_the_fewest(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock
) -> None:
    here = held_in_a_queue(memory, spec, profile(queue="gpus", wait_s=60, resources={"snapshot": {"nodes": {"min": 1, "max": 4}}}))
    for before, fewer in ((4, 2), (2, 1)):
        clock.turn(59)
        assert "asks for" not in here.poll(spec.name).reason
        clock.turn(2)
        assert f"asks for {fewer} pods instead of {before}" in here.poll(spec.name).reason
        while "another number of pods" not in here.poll(spec.name).reason:
            pass
        hold(memory, spec)
        assert memory.kind.pods_wanted(memory.objects[spec.name]) == fewer
        here.poll(spec.name)
    clock.turn(600)
    assert "asks for" not in here.poll(spec.name).reason
    assert here.poll(spec.name).restarts == 0


@pytest.mark.parametrize("changes", [{"queue": "gpus"}, {"resources": {"snapshot": {"nodes": {"min": 1, "max": 4}}}}])
def test_a_job_of_one_size_or_without_a_queue_asks_for_no_fewer_pods(
    memory: Memory, spec: JobSpec, profile: Profiles, clock: TurnedClock, changes: dict[str, Any]
) -> None:
    here = held_in_a_queue(memory, spec, profile(wait_s=60, **changes))
    clock.turn(3600)
    assert "asks for" not in here.poll(spec.name).reason
    assert SIZE not in memory.objects[spec.name]["metadata"]["annotations"]
