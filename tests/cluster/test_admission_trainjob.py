"""The admission policies on a real API server, for TrainJobs: their runtime, their patches of it, and who may make runtimes."""

import copy
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from components.launcher.job import prerequisites, to_manifest
from components.launcher.profile import Profile, load_profile
from components.launcher.spec import spec_of
from edm2core.plan.tasks import Task
from tests.cluster.lab import kubectl, until
from tests.cluster.test_admission import applied, secret_variable

pytestmark = pytest.mark.cluster
Job = dict[str, Any]


@pytest.fixture(scope="module")
def profile(installed: str) -> Profile:
    return Profile.loads(json.dumps({**json.loads(load_profile("lab").dumps()), "namespace": installed, "job": "trainjob"}))


@pytest.fixture(scope="module")
def job(profile: Profile) -> Job:
    """A job as edm2-control makes it, whose runtime the overlay has brought."""
    task = Task("sample", 1, {}, {}, "k" * 20, "C · 10 samples at epoch 1")
    return to_manifest(spec_of(task, profile.store.uri), profile)


@pytest.fixture(autouse=True)
def in_force(installed: str, job: Job) -> None:
    """The API server takes a moment to act on a policy that is new."""
    other = copy.deepcopy(job)
    pod_of(other)["serviceAccountName"] = "default"
    until(lambda: True if applied(other, installed) else None, 60, lambda: "the policy is not acted on")


def pod_of(job: Job) -> Job:
    """What the job's one patch changes of its pods."""
    (patch,) = job["spec"]["runtimePatches"]
    pod: Job = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return pod


def second_patch(job: Job) -> None:
    patch = copy.deepcopy(job["spec"]["runtimePatches"][0])
    job["spec"]["runtimePatches"].append({**patch, "manager": "another/one"})
    pod_of({"spec": {"runtimePatches": job["spec"]["runtimePatches"][1:]}})["serviceAccountName"] = "default"


CHANGES: dict[str, Callable[[Job], None]] = {
    "another account": lambda job: pod_of(job).update(serviceAccountName="edm2-control"),
    "another account by another patch": second_patch,
    "another Secret's value": lambda job: job["spec"]["trainer"]["env"].append(secret_variable("edm2-store-root")),
    "another Secret's value by a patch": lambda job: pod_of(job)["containers"][0].update(env=[secret_variable("edm2-store-root")]),
    "a Secret before it starts": lambda job: pod_of(job).update(
        initContainers=[{"name": "first", "env": [secret_variable("edm2-store-root")]}]
    ),
    "another Secret as files": lambda job: pod_of(job)["volumes"].append({"name": "s", "secret": {"secretName": "edm2-store-root"}}),
    "a token as files": lambda job: pod_of(job)["volumes"].append(
        {"name": "s", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    ),
    "the node's files": lambda job: pod_of(job)["volumes"].append({"name": "s", "hostPath": {"path": "/"}}),
    "privileges": lambda job: pod_of(job)["containers"][0].update(securityContext={"privileged": True}),
    "a runtime of the whole cluster": lambda job: job["spec"]["runtimeRef"].update(kind="ClusterTrainingRuntime"),
    "somebody else's runtime": lambda job: job["spec"]["runtimeRef"].update(name="other"),
    "an initializer with a Secret": lambda job: job["spec"].update(
        initializer={"dataset": {"storageUri": "hf://x/y", "secretRef": {"name": "edm2-store-root"}}}
    ),
}


def test_what_the_launcher_makes_is_admitted(installed: str, job: Job) -> None:
    assert applied(job, installed) == ""
    more = copy.deepcopy(job)
    pod_of(more)["serviceAccountName"] = "edm2-job"
    pod_of(more)["volumes"] += [
        {"name": "own", "secret": {"secretName": "edm2-store"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
    ]
    assert applied(more, installed) == ""


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_that_asks_for_more_is_refused_in_words(installed: str, job: Job, profile: Profile, change: str) -> None:
    if change == "somebody else's runtime":
        (runtime,) = prerequisites(profile)
        kubectl("apply", "-f", "-", text=json.dumps({**runtime, "metadata": {**runtime["metadata"], "name": "other"}}))
    asking = copy.deepcopy(job)
    CHANGES[change](asking)
    said = applied(asking, installed)
    assert "edm2-trainjobs" in said
    assert "its " in said


def test_a_job_that_is_there_can_be_resumed_but_not_changed_to_ask_for_more(installed: str, job: Job) -> None:
    suspended = copy.deepcopy(job)
    suspended["spec"]["suspend"] = True
    kubectl("create", "-f", "-", text=json.dumps(suspended))
    name, who = job["metadata"]["name"], f"--as=system:serviceaccount:{installed}:edm2-control"
    asking = copy.deepcopy(suspended)
    pod_of(asking)["serviceAccountName"] = "default"
    try:
        for patch, admitted in (
            ({"metadata": {"annotations": {"a": "b"}}}, True),
            ({"spec": {"runtimePatches": asking["spec"]["runtimePatches"]}}, False),
        ):
            command = ["kubectl", "-n", installed, "patch", "trainjob", name, "--type=merge", who, "-p", json.dumps(patch)]
            ran = subprocess.run(command, capture_output=True, text=True)
            assert (ran.returncode == 0) is admitted, ran.stderr
    finally:
        kubectl("-n", installed, "delete", "trainjob", name)


def test_the_control_account_may_make_no_runtime_whatever_its_role_says(installed: str, profile: Profile) -> None:
    (runtime,) = prerequisites(profile)
    made = {**runtime, "metadata": {**runtime["metadata"], "name": "edm2-mine"}}
    assert "is forbidden" in applied(made, installed)
    metadata = {"name": "too-much", "namespace": installed}
    rules = [{"apiGroups": ["trainer.kubeflow.org"], "resources": ["trainingruntimes"], "verbs": ["create"]}]
    subject = {"kind": "ServiceAccount", "name": "edm2-control", "namespace": installed}
    rbac = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "too-much"},
        "subjects": [subject],
    }
    kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]}))
    try:
        until(lambda: True if "may make no runtime" in applied(made, installed) else None, 30, lambda: applied(made, installed))
    finally:
        kubectl("-n", installed, "delete", "role,rolebinding", "too-much")
