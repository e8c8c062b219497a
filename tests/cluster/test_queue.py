"""Kueue decides when jobs run: it admits, holds, preempts and resumes jobs of either kind, and what they wait for is said."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from components.launcher.cluster import ApiServer
from components.launcher.job import cluster_spec, to_manifest
from components.launcher.job_kinds import KINDS
from components.launcher.profile import Profile
from pipelines.doctor.cluster import check_cluster
from tests.cluster.lab import Follower, Lab, kubectl, until

pytestmark = pytest.mark.cluster
OTHERS_SLOW = [pytest.param(kind.word, marks=[pytest.mark.slow] if kind is not KINDS[0] else []) for kind in KINDS]
Names = dict[str, str]


@pytest.fixture(scope="module")
def queue(lab: Lab) -> Iterator[Names]:
    """A LocalQueue with room for one training of two pods, and two priorities."""
    own = f"edm2-{secrets.token_hex(3)}"
    names = {"queue": own, "high": f"{own}-high", "low": f"{own}-low"}
    quota = [
        {"name": "cpu", "nominalQuota": "500m"},
        {"name": "memory", "nominalQuota": "4Gi"},
        {"name": "nvidia.com/gpu", "nominalQuota": 0},
    ]
    group = {"coveredResources": [each["name"] for each in quota], "flavors": [{"name": own, "resources": quota}]}
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "preemptionPolicy": "Never"}
    lab.apply(
        kueue("ResourceFlavor", own),
        kueue(
            "ClusterQueue",
            own,
            spec={"namespaceSelector": {}, "resourceGroups": [group], "preemption": {"withinClusterQueue": "LowerPriority"}},
        ),
        kueue("LocalQueue", own, lab.namespace, spec={"clusterQueue": own}),
        {**priority, "metadata": {"name": names["high"]}, "value": 20},
        {**priority, "metadata": {"name": names["low"]}, "value": 10},
    )
    yield names
    lab.delete_jobs()
    kubectl("-n", lab.namespace, "delete", "localqueue", own, "--wait=false")
    kubectl("delete", "clusterqueue,resourceflavor", own, "--wait=false")
    kubectl("delete", "priorityclass", names["high"], names["low"], "--wait=false")


def kueue(kind: str, name: str, namespace: str = "", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": metadata, **parts}


@pytest.mark.parametrize("job", OTHERS_SLOW)
def test_jobs_are_admitted_held_preempted_and_resumed(lab: Lab, queue: Names, job: str) -> None:
    def queued(epochs: int, priority: str) -> Follower:
        profile, (training,) = lab.fresh([epochs], job=job, queue=queue["queue"], priority_classes={"training": queue[priority]})
        return lab.follow(training, profile)

    admitted = queued(400, "low")
    admitted.wait_for_step(46)
    (workload,) = json.loads(kubectl("-n", lab.namespace, "get", "workloads", "-o", "json"))["items"]
    assert workload["metadata"]["ownerReferences"][0]["kind"] == admitted.kind.name

    held = queued(2, "low")
    until(lambda: waiting(held, "insufficient unused quota for cpu") or None, 60, lambda: str(held.events[-5:]))
    assert held.pods() == []

    urgent = queued(2, "high")
    assert urgent.done().metadata["epoch"] == 2
    stopped = admitted.wait_for("interrupted")
    until(lambda: waiting(admitted, "it was evicted: Preempted") or None, 10, lambda: str(admitted.events[-9:]))
    restart = admitted.wait_for("restart", 180, after=stopped["time"])
    assert f"step {restart['step']} " in stopped["message"]
    assert held.pods() == []

    admitted.stop.set()
    admitted.backend.stop(admitted.spec.name, 30)
    assert held.done().metadata["epoch"] == 2


def waiting(follower: Follower, words: str) -> bool:
    return any(words in str(event.get("message")) for event in list(follower.events) if event["kind"] == "waiting")


@pytest.mark.parametrize("job", OTHERS_SLOW)
def test_kueue_admits_all_pods_of_a_job_or_none_whatever_it_is_asked_for(lab: Lab, queue: Names, job: str) -> None:
    """Its partial admission is asked for by this annotation, which it heeds for Jobs of Kubernetes alone."""
    profile, (training,) = lab.fresh([2], job=job, queue=queue["queue"], resources={"snapshot": {"nodes": 4}})
    lab.require(profile)
    manifest = to_manifest(cluster_spec(training, profile.store.uri, profile), profile)
    manifest["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] = "1"
    lab.apply(manifest)
    name = manifest["metadata"]["name"]

    def refused() -> dict[str, Any] | None:
        found = json.loads(kubectl("-n", lab.namespace, "get", "workloads", "-o", "json"))["items"]
        own = [each for each in found if each["metadata"]["ownerReferences"][0]["name"] == name]
        says = [c for each in own for c in each.get("status", {}).get("conditions", []) if c["type"] == "QuotaReserved"]
        return own[0] if says and says[0]["status"] == "False" else None

    workload = until(refused, 60, lambda: "Kueue says nothing of the job")
    assert [part.get("minCount") for part in workload["spec"]["podSets"]] == [None]
    assert "insufficient" in json.dumps(workload["status"])


@pytest.mark.parametrize("job", OTHERS_SLOW)
def test_a_training_for_which_its_queue_has_no_room_goes_on_with_half_of_its_pods(lab: Lab, queue: Names, job: str) -> None:
    nodes = {"min": 1, "max": 4}
    profile, (training,) = lab.fresh([2], job=job, queue=queue["queue"], wait_s=5, resources={"snapshot": {"nodes": nodes}})
    follower = lab.follow(training, profile)
    until(lambda: waiting(follower, "asks for 2 pods instead of 4") or None, 90, lambda: str(follower.events[-5:]))
    assert follower.done().metadata["epoch"] == 2
    assert follower.kind.pods_wanted(follower.job()) == 2


@pytest.fixture
def integration_is_off(request: pytest.FixtureRequest) -> Iterator[str]:
    """A kind of job that Kueue does not know for a while: it is out of Kueue's configuration, and Kueue was started again."""
    word = str(request.param)
    in_kueue = ("-n", "kueue-system")
    before = kubectl(*in_kueue, "get", "configmap", "kueue-manager-config", "-o", "jsonpath={.data.controller_manager_config\\.yaml}")
    without = "".join(line for line in before.splitlines(keepends=True) if f"/{word}" not in line)
    assert without != before

    def configure(text: str) -> None:
        patch = json.dumps({"data": {"controller_manager_config.yaml": text}})
        kubectl(*in_kueue, "patch", "configmap", "kueue-manager-config", "--type=merge", "-p", patch)
        kubectl(*in_kueue, "rollout", "restart", "deployment/kueue-controller-manager")
        kubectl(*in_kueue, "rollout", "status", "deployment/kueue-controller-manager", "--timeout=180s")

    configure(without)
    try:
        yield word
    finally:
        configure(before)


@pytest.mark.slow
@pytest.mark.parametrize("integration_is_off", ["pytorchjob", "trainjob"], indirect=True)
def test_doctor_says_that_kueue_would_ignore_a_queue_whose_jobs_it_does_not_know(lab: Lab, queue: Names, integration_is_off: str) -> None:
    for kind in KINDS:
        profile = lab.profile(job=kind.word, queue=queue["queue"])
        lab.require(profile)

        def words(profile: Profile = profile) -> list[str]:
            checks = check_cluster(ApiServer.connect(None), profile)
            return [check.what for check in checks if check.what.startswith(("Kueue", "whether Kueue"))]

        expected = f"Kueue would ignore the queue {queue['queue']}: its integration of {kind.name} is off"
        if kind.word != integration_is_off:
            expected = f"Kueue holds a {kind.name} of the queue {queue['queue']} until it is admitted"
        until(lambda expected=expected, words=words: True if expected in words() else None, 60, lambda words=words: str(words()))
