"""What nodes do to pods while a job runs: one that evicts a pod, one that is lost and never says that its pod has ended."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from components.launcher import follower as following
from tests.cluster.lab import Lab, kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
WHERE = "edm2-test/where"  # label of the node that a job is to run on


def test_a_pod_that_its_node_evicts_is_replaced_and_training_goes_on(lab: Lab) -> None:
    little = {"resources": {"limits": {"ephemeral-storage": "300Mi"}, "requests": {"ephemeral-storage": "10Mi"}}}
    profile, (training,) = lab.fresh([400], patch={"containers": [{"name": "pytorch", **little}]})
    follower = lab.follow(training, profile)
    follower.wait_for_step(69)
    follower.inside(1, "open('/tmp/much', 'wb').write(bytes(500 << 20))")  # a node measures volumes once a minute
    assert follower.wait_for("restart", 240)["step"] > 0
    said = [event["message"] for event in list(follower.events) if event["kind"] == "warning"]
    follower.stop.set()
    follower.backend.stop(follower.spec.name, profile.grace_s)
    assert any("was evicted by its node: " in words and "ephemeral" in words for words in said), said


@pytest.fixture
def lost_node() -> Iterator[str]:
    """A node that the cluster believes in and that no machine is behind; its name, which is also its label's value."""
    name = f"gone-{secrets.token_hex(3)}"
    kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {WHERE: name}}}))
    room = {"cpu": "8", "memory": "16Gi", "pods": "20", "ephemeral-storage": "50Gi"}
    patch("node", name, {"status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}})
    (real,) = [node for node in kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split() if node != name]
    yield name
    kubectl("label", "node", real, f"{WHERE}-")
    kubectl("delete", "node", name, "--wait=false")


def test_a_pod_on_a_lost_node_is_given_up_and_begins_on_another(lab: Lab, lost_node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LEAVE_S", 5.0)
    changes: dict[str, Any] = {"node_selector": {WHERE: lost_node}, "resources": {"snapshot": {"nodes": 1}}, "grace_s": 5}
    profile, (training,) = lab.fresh([2], **changes)
    follower = lab.follow(training, profile)
    pod = f"{follower.spec.name}-worker-0"  # a PyTorchJob's
    on_it = ("-n", lab.namespace, "get", "pods", "--field-selector", f"spec.nodeName={lost_node}", "-o", "name")
    until(lambda: kubectl(*on_it) or None, 60, lambda: str(follower.events))
    # As the cluster declares it itself, later:
    ready = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]
    patch("pod", pod, {"status": {"phase": "Running", "conditions": ready}}, lab.namespace)
    follower.wait_for("waiting", 30, message=f"{pod}: its node {lost_node} does not answer")
    (real,) = [node for node in kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split() if node != lost_node]
    kubectl("label", "node", lost_node, f"{WHERE}-")
    kubectl("label", "node", real, f"{WHERE}={lost_node}")
    kubectl("-n", lab.namespace, "delete", "pod", pod, "--wait=false")  # as the cluster does some minutes after the node fell silent
    uid = follower.job()["metadata"]["uid"]
    follower.done()
    assert follower.job()["metadata"]["uid"] == uid
    (pod_now,) = follower.pods()
    assert pod_now["spec"]["nodeName"] == real


def patch(kind: str, name: str, change: dict[str, Any], namespace: str = "default") -> None:
    """Change an object's status."""
    kubectl("-n", namespace, "patch", kind, name, "--subresource=status", "--type=merge", "-p", json.dumps(change))
