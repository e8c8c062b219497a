"""Kueue decides when jobs run: it admits, holds, preempts and resumes jobs of either kind, and what they wait for is said."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from components.launcher.job_kinds import KINDS
from tests.cluster.lab import Follower, Lab, kubectl, until

pytestmark = pytest.mark.cluster
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


@pytest.mark.parametrize("job", [pytest.param(kind.word, marks=[pytest.mark.slow] if kind is not KINDS[0] else []) for kind in KINDS])
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
