"""What keeps a job from running is said in one line, and the task fails within a minute or the configured patience."""

import json
import secrets
import time
from typing import Any

import pytest
from kubernetes import client, config

from components.launcher.cluster import ApiServer, Cluster, ClusterError
from components.launcher.cluster_backend import ClusterBackend
from components.launcher.job import cluster_spec
from components.launcher.job_kinds import KINDS
from components.launcher.job_kinds.pytorchjob import PyTorchJob
from edm2core.errors import EdmError
from edm2core.store import open_store
from edm2core.store.runs import Run
from tests.cluster.lab import Lab, kubectl, until

pytestmark = pytest.mark.cluster

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an image that is not there": (
        {"images": {"compute": "localhost:5000/nothing/here:1"}},
        "the image localhost:5000/nothing/here:1 cannot be pulled",
    ),
    "a node that is not there": ({"node_selector": {"no": "such"}}, "node affinity/selector"),
    "what PodSecurity forbids": ({"patch": {"securityContext": {"runAsNonRoot": False}}}, 'PodSecurity "restricted'),
    "an account that is not there": ({"service_accounts": {"job": "nobody"}}, "nobody"),
    "a Secret that is not there": ({"store": {"secret": "nothing"}}, 'secret "nothing" not found'),
}


@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_what_cannot_run_fails_within_a_minute_with_the_reason(lab: Lab, job: str) -> None:
    began, (_, training) = time.time(), lab.tasks([2])
    followers = {}
    for name, (changes, _words) in WRONG.items():
        store = {"uri": f"s3://edm2/{secrets.token_hex(3)}", **changes.get("store", {})}
        followers[name] = lab.follow(training, lab.profile(**{**changes, "store": store, "job": job}))
    for name, follower in followers.items():
        with pytest.raises(EdmError) as caught:
            follower.done(90)
        assert WRONG[name][1] in caught.value.what, name
        assert "\n" not in caught.value.what, name
        assert follower.ended - began < 75, name
        until(lambda f=follower: None if f.pods() else True, 40, lambda: "pods are left")


def test_what_does_not_fit_fails_after_the_configured_patience(lab: Lab) -> None:
    _, training = lab.tasks([2])
    profile = lab.profile(store={"uri": f"s3://edm2/{secrets.token_hex(3)}"}, resources={"snapshot": {"gpus": 99}}, patience_s=10)
    with pytest.raises(EdmError, match=r"Insufficient nvidia\.com/gpu"):
        lab.follow(training, profile).done(30)


@pytest.mark.parametrize("job", [kind.word for kind in KINDS])
def test_an_exhausted_quota_is_named_and_waited_for_only_as_long_as_configured(lab: Lab, job: str) -> None:
    _, training = lab.tasks([2])
    with_quota(lab, 1)
    try:
        with pytest.raises(EdmError, match=r"quota is exhausted: .*pods=1"):
            lab.follow(training, lab.profile(store={"uri": f"s3://edm2/{secrets.token_hex(3)}"}, job=job)).done(90)
    finally:
        kubectl("-n", lab.namespace, "delete", "resourcequota", "few")


@pytest.mark.slow
def test_two_jobs_of_which_only_one_fits_take_turns(lab: Lab) -> None:
    with_quota(lab, 3)
    try:
        jobs = [lab.fresh([4]) for _ in range(2)]
        for follower in [lab.follow(training, profile) for profile, (training,) in jobs]:
            follower.done(500)
    finally:
        kubectl("-n", lab.namespace, "delete", "resourcequota", "few")


@pytest.mark.parametrize(
    ("verb", "resource"), [("create", "pytorchjobs"), ("patch", "pytorchjobs"), ("list", "pods"), ("get", "pods/log"), ("list", "events")]
)
def test_a_missing_right_is_named(lab: Lab, verb: str, resource: str) -> None:
    limited = f"without-{verb}-{resource.replace('/', '-')}"
    rights = {"pytorchjobs": ["get", "list", "create", "patch", "delete"], "pods": ["get", "list"], "pods/log": ["get"], "events": ["list"]}
    rights[resource].remove(verb)
    rules = [
        {"apiGroups": ["kubeflow.org" if name == "pytorchjobs" else ""], "resources": [name], "verbs": verbs}
        for name, verbs in rights.items()
        if verbs
    ]
    metadata = {"name": limited, "namespace": lab.namespace}
    lab.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": limited},
            "subjects": [{"kind": "ServiceAccount", "name": limited, "namespace": lab.namespace}],
        },
    )
    profile, (training,) = lab.fresh([20])
    follower = lab.follow(training, profile, cluster=as_account(lab, limited))
    if verb == "patch":
        follower.wait_for("start")
        with pytest.raises(ClusterError) as refused:
            follower.backend.stop(follower.spec.name, 1)
        follower.stop.set()
        error: EdmError = refused.value
    else:
        with pytest.raises(EdmError) as caught:
            follower.done(90)
        error = caught.value
    assert "Forbidden" in error.what
    assert f"the verb {verb} on {resource};" in error.do_next


def test_a_cluster_without_the_training_operator_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PyTorchJob, "version", "v9")  # which this server knows as little as v1 where nothing is installed
    backend = ClusterBackend(lab.profile(), Cluster.connect(lab.profile()), Run("none", open_store(lab.profile().store.uri)))
    _, training = lab.tasks([2])
    spec = cluster_spec(training, lab.profile().store.uri, lab.profile())
    with pytest.raises(ClusterError, match="training operator"):
        backend.start(spec)


def test_a_runtime_that_is_not_there_is_named(lab: Lab) -> None:
    profile = lab.profile(job="trainjob", grace_s=77)
    backend = ClusterBackend(profile, Cluster.connect(profile), Run("none", open_store(profile.store.uri)))
    with pytest.raises(ClusterError, match=r"has no TrainingRuntime edm2-"):
        backend.start(cluster_spec(lab.tasks([2])[1], profile.store.uri, profile))


def with_quota(lab: Lab, pods: int) -> None:
    metadata = {"name": "few", "namespace": lab.namespace}
    lab.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": str(pods)}}})


def as_account(lab: Lab, name: str) -> Cluster:
    """The cluster as that ServiceAccount may use it."""
    token = json.loads(kubectl("-n", lab.namespace, "create", "token", name, "-o", "json"))["status"]["token"]
    configuration = client.Configuration()
    config.load_kube_config(client_configuration=configuration)
    configuration.cert_file = configuration.key_file = None
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return Cluster(ApiServer(configuration), lab.namespace, PyTorchJob())
