"""Where Kubeflow Trainer's gate TrainJobStatus is on, `kubectl get trainjob` shows how far a training is."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.lab import K8S, Lab, kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CONTROLLER = "deployment/kubeflow-trainer-controller-manager"
GATE = "--feature-gates=TrainJobStatus=true"


@pytest.fixture
def gate() -> Iterator[None]:
    """The gate, on for a while: Kubeflow Trainer is started again with it, and then without it."""
    in_trainer = ("-n", "kubeflow-system")
    before = json.loads(kubectl(*in_trainer, "get", CONTROLLER, "-o", "json"))["spec"]["template"]["spec"]["containers"][0]["args"]

    def begin(arguments: list[str]) -> None:
        change = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]
        kubectl(*in_trainer, "patch", CONTROLLER, "--type=json", "-p", json.dumps(change))
        kubectl(*in_trainer, "rollout", "status", CONTROLLER, "--timeout=180s")

    begin([*before, GATE])
    try:
        yield
    finally:
        begin(before)


def test_a_trainjob_says_its_progress_the_seconds_left_and_its_loss(lab: Lab, gate: None) -> None:
    kubectl("-n", lab.namespace, "apply", "-f", str(K8S / "components" / "trainer-status" / "networkpolicy.yaml"))
    profile, (training,) = lab.fresh([200], job="trainjob")
    follower = lab.follow(training, profile)
    told = until(lambda: follower.job().get("status", {}).get("trainerStatus"), 180, lambda: str(follower.events[-9:]))
    assert 0 <= told["progressPercentage"] < 100
    assert told["estimatedRemainingSeconds"] > 0
    assert {metric["name"] for metric in told["metrics"]} >= {"loss", "images_per_s"}
    until(lambda: follower.job()["status"]["trainerStatus"]["lastUpdatedTime"] > told["lastUpdatedTime"] or None, 60, str)
    follower.stop.set()
    follower.backend.stop(follower.spec.name, profile.grace_s)
