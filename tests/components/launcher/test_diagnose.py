"""What the API's objects of jobs in trouble mean; the objects are as a cluster showed them."""

from collections.abc import Iterable
from typing import Any

import pytest

from components.launcher import diagnose as diagnosing
from components.launcher.diagnose import Diagnosis, age, deaths
from components.launcher.job_kinds.pytorchjob import PyTorchJob

Object = dict[str, Any]


def job(conditions: list[str] | None = None, *, suspend: bool = False, labels: dict[str, str] | None = None) -> Object:
    return {
        "metadata": {"name": "j", "uid": "j-uid", "labels": labels or {}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"runPolicy": {"suspend": suspend}, "pytorchReplicaSpecs": {"Worker": {"replicas": 2}}},
        "status": {"conditions": [{"type": kind, "status": "True", "message": f"{kind} it is"} for kind in conditions or ["Created"]]},
    }


def pod(index: int, phase: str = "Pending", state: Object | None = None, conditions: list[Object] | None = None) -> Object:
    statuses = [{"name": "pytorch", "image": "registry/compute:1", "state": state}] if state else []
    return {
        "metadata": {"name": f"j-worker-{index}", "uid": f"p{index}"},
        "spec": {"containers": [{"name": "pytorch", "resources": {"limits": {"memory": "200Mi"}}}]},
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": conditions or []},
    }


def diagnose(job: Object | None, pods: list[Object], events: Iterable[Object] = ()) -> Diagnosis:
    return diagnosing.diagnose(PyTorchJob(), job, pods, events)


def event(uid: str, reason: str, message: str, time: str = "2026-01-01T00:00:00Z") -> Object:
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message, "lastTimestamp": time, "metadata": {}}


def running(index: int) -> Object:
    return pod(index, "Running", {"running": {}})


def unscheduled(index: int, message: str) -> Object:
    return pod(index, conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])


def ended(index: int, code: int, reason: str = "Error", time: str = "2026-01-01T00:00:00Z") -> Object:
    return pod(index, "Failed", {"terminated": {"exitCode": code, "reason": reason, "finishedAt": time}})


def test_all_pods_running_is_running_whatever_the_conditions_say() -> None:
    assert diagnose(job(["Created", "Restarting"]), [running(0), running(1)]).state == "running"


def test_a_job_that_is_gone_is_absent_and_a_succeeded_one_done() -> None:
    assert diagnose(None, []).state == "absent"
    assert diagnose(job(["Created", "Running", "Succeeded"]), []).state == "done"


def test_a_restarting_job_has_not_failed() -> None:
    found = diagnose(job(["Created", "Restarting"]), [running(1), pod(0)])
    assert (found.state, found.reason, found.cause) == ("queued", "1 of 2 pods run", "")


def test_a_suspended_job_waits() -> None:
    assert diagnose(job(suspend=True), []).cause == "suspended"
    queued = diagnose(job(suspend=True, labels={"kueue.x-k8s.io/queue-name": "gpus"}), [])
    assert (queued.state, queued.reason) == ("queued", "waits in the queue gpus")


@pytest.mark.parametrize(
    ("pods", "events", "kind", "words"),
    [
        ([unscheduled(0, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")], [], "room", "cannot be scheduled: 0/3 nodes"),
        ([unscheduled(0, "0/3 nodes didn't match Pod's node affinity/selector.")], [], "place", "affinity/selector"),
        (
            [pod(0, state={"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off "registry"'}})],
            [],
            "broken",
            "image registry/compute:1",
        ),
        ([pod(0, state={"waiting": {"reason": "ErrImagePull", "message": "not found"}})], [], "broken", "ErrImagePull): not found"),
        (
            [pod(0, state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}})],
            [],
            "broken",
            'secret "keys" not found',
        ),
        ([pod(0)], [event("p0", "FailedMount", "MountVolume.SetUp failed")], "broken", "FailedMount): MountVolume"),
        (
            [],
            [event("j-uid", "FailedCreatePod", 'pods "j-worker-0" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4')],
            "room",
            "quota is exhausted: q, requested: pods=1",
        ),
        (
            [],
            [event("j-uid", "FailedCreatePod", 'pods "j" is forbidden: violates PodSecurity "restricted:latest": runAsUser=0')],
            "broken",
            'PodSecurity refuses the pods: PodSecurity "restricted:latest": runAsUser=0',
        ),
        (
            [running(0)],
            [event("j-uid", "FailedCreatePod", "error looking up service account team/edm2-job: not found")],
            "broken",
            "service account team/edm2-job",
        ),
    ],
)
def test_why_a_job_does_not_run_is_said_in_one_line(pods: list[Object], events: list[Object], kind: str, words: str) -> None:
    found = diagnose(job(), pods, events)
    assert (found.state, found.cause) == ("queued", kind)
    assert words in found.reason
    assert "\n" not in found.reason


def test_an_old_refusal_does_not_count_once_all_pods_are_there() -> None:
    refused = event("j-uid", "FailedCreatePod", "exceeded quota: q")
    assert diagnose(job(), [running(0), pod(1)], [refused]).cause == ""


def test_events_of_other_objects_are_ignored() -> None:
    assert diagnose(job(), [], [event("another", "FailedCreatePod", "exceeded quota: q")]).cause == ""


def test_a_failed_job_fails_with_the_error_that_came_first() -> None:
    pods = [ended(0, 143, time="2026-01-01T00:00:01Z"), ended(1, 2, time="2026-01-01T00:00:02Z")]
    found = diagnose(job(["Created", "Running", "Failed"]), pods)
    assert (found.state, found.code, found.reason) == ("failed", 2, "j-worker-1 ended with exit code 2")


def test_a_job_that_failed_without_a_dead_pod_says_what_the_operator_says() -> None:
    found = diagnose(job(["Failed"]), [])
    assert (found.state, found.reason, found.code) == ("failed", "Failed it is", 1)


def test_out_of_memory_names_the_limit() -> None:
    (death,) = deaths([ended(0, 137, "OOMKilled")])
    assert "ran out of memory (OOMKilled; its limit is 200Mi)" in death.words


def test_a_pod_that_its_node_evicted_is_named_with_the_nodes_words_whatever_its_exit_code() -> None:
    for code in (137, 143):
        evicted = ended(0, code)
        evicted["status"] |= {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage. "}
        (death,) = deaths([evicted])
        assert death.words == "j-worker-0 was evicted by its node: The node was low on resource: ephemeral-storage."
        assert death.first_cause
    assert not deaths([ended(1, 143)])[0].first_cause  # which only lost the other


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("EvictionByEvictionAPI", "was evicted, as when a node is drained: Eviction API: evicting"),
        ("DeletionByTaintManager", "was taken from its node, which does not answer"),
        ("PreemptionByScheduler", "made way for a pod of higher priority"),
        ("SomethingNew", "was taken away"),
    ],
)
def test_a_pod_that_the_cluster_takes_away_is_known_before_it_has_ended(reason: str, words: str) -> None:
    taken = running(0)
    taken["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "Eviction API: evicting"}]
    (death,) = deaths([taken, running(1)])
    assert death.first_cause
    assert words in death.words


def test_a_pod_that_its_node_turned_away_says_which_and_why() -> None:
    refused = pod(0, "Failed")
    refused["spec"]["nodeName"] = "node-7"
    refused["status"] |= {"reason": "UnexpectedAdmissionError", "message": "Allocate failed: no devices"}
    found = diagnose(job(["Created", "Restarting"]), [refused, running(1)])
    assert (found.state, found.cause) == ("queued", "refused")
    assert found.reason == "j-worker-0 was turned away by the node node-7 (UnexpectedAdmissionError): Allocate failed: no devices"


def test_a_pod_whose_node_does_not_answer_does_not_run() -> None:
    lost = running(0)
    lost["spec"]["nodeName"] = "node-7"
    lost["status"]["conditions"] = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    found = diagnose(job(), [lost, running(1)])
    assert (found.state, found.reason) == ("queued", "j-worker-0: its node node-7 does not answer")


def test_a_pod_that_is_ending_is_named_with_its_node() -> None:
    leaving = running(0)
    leaving["spec"]["nodeName"] = "node-7"
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert diagnose(job(), [leaving, running(1)]).reason == "1 of 2 pods run; j-worker-0 is ending on node-7"


def test_a_job_that_its_deadline_ended_says_so_and_not_how_its_pods_died() -> None:
    late = job(["Created", "Running", "Failed"])
    late["status"]["conditions"][-1]["message"] = "Job j has failed because it was active longer than specified deadline"
    assert "longer than specified deadline" in diagnose(late, [ended(0, 143), ended(1, 137)]).reason


def test_jobs_of_one_second_are_ordered_by_name() -> None:
    one, two = job(), job()
    two["metadata"]["name"] = "i"
    assert sorted([one, two], key=age) == [two, one]


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"spec": {}}, "waits in the queue gpus"),
        (
            {"spec": {}, "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": "couldn't assign\n flavors"}]}},
            "waits in the queue gpus: couldn't assign flavors",
        ),
        (
            {
                "spec": {"active": True},
                "status": {
                    "conditions": [
                        {"type": "QuotaReserved", "status": "False", "message": "no room"},
                        {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "Preempted to accommodate another"},
                    ]
                },
            },
            "waits in the queue gpus: no room; it was evicted: Preempted to accommodate another",
        ),
        (
            {"spec": {}, "status": {"conditions": [{"type": "QuotaReserved", "status": "True"}]}},
            "waits in the queue gpus: it has its quota and is about to begin",
        ),
        ({"spec": {"active": False}}, "waits in the queue gpus, which does not admit it: the Workload w is deactivated"),
    ],
)
def test_a_job_in_a_queue_says_what_kueue_says(workload: dict[str, Any], words: str) -> None:
    assert diagnosing.wait_in_queue("gpus", [{"metadata": {"name": "w"}, **workload}]) == words
    assert diagnosing.wait_in_queue("gpus", []) == "waits in the queue gpus"
