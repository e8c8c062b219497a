"""The admission policy on a real API server: jobs of edm2-control run under one account, with one Secret, and nothing of the node's."""

import copy
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from components.launcher.job import to_manifest
from components.launcher.profile import Profile, load_profile
from components.launcher.spec import spec_of
from edm2core.plan.tasks import Task
from tests.cluster.lab import Lab, kubectl, until

pytestmark = pytest.mark.cluster
Job = dict[str, Any]


@pytest.fixture(scope="module")
def job(installed: str) -> Job:
    """A job as edm2-control makes it."""
    profile = Profile.loads(json.dumps({**json.loads(load_profile("lab").dumps()), "namespace": installed, "job": "pytorchjob"}))
    task = Task("sample", 1, {}, {}, "k" * 20, "C · 10 samples at epoch 1")
    return to_manifest(spec_of(task, profile.store.uri), profile)


@pytest.fixture(autouse=True)
def in_force(installed: str, job: Job) -> None:
    """The API server takes a moment to act on a policy that is new."""
    other = copy.deepcopy(job)
    pod_of(other)["serviceAccountName"] = "default"
    until(lambda: True if applied(other, installed) else None, 60, lambda: "the policy is not acted on")


def applied(job: Job, namespace: str, account: str = "edm2-control") -> str:
    """Why the API server would not take the job from that account; empty if it would."""
    who = f"system:serviceaccount:{namespace}:{account}"
    command = ["kubectl", "create", "--dry-run=server", "-f", "-", f"--as={who}", "--as-group=system:serviceaccounts"]
    ran = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)
    return "" if ran.returncode == 0 else ran.stderr


def pod_of(job: Job) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    return pod


def secret_variable(name: str) -> dict[str, Any]:
    return {"name": "STOLEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "another account": lambda pod: pod.update(serviceAccountName="edm2-control"),
    "no account": lambda pod: pod.pop("serviceAccountName"),
    "a token": lambda pod: pod.update(automountServiceAccountToken=True),
    "a token unless said otherwise": lambda pod: pod.pop("automountServiceAccountToken"),
    "another Secret's value": lambda pod: pod["containers"][0]["env"].append(secret_variable("edm2-store-root")),
    "another Secret's values": lambda pod: pod["containers"][0].update(envFrom=[{"secretRef": {"name": "edm2-store-root"}}]),
    "another Secret as files": lambda pod: pod["volumes"].append({"name": "s", "secret": {"secretName": "edm2-store-root"}}),
    "a token as files": lambda pod: pod["volumes"].append(
        {"name": "s", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    ),
    "the node's files": lambda pod: pod["volumes"].append({"name": "s", "hostPath": {"path": "/"}}),
    "the node's network": lambda pod: pod.update(hostNetwork=True),
    "the node's processes": lambda pod: pod.update(hostPID=True),
    "privileges": lambda pod: pod["containers"][0].update(securityContext={"privileged": True}),
    "a Secret before it starts": lambda pod: pod.update(
        initContainers=[{"name": "first", "image": "x", "env": [secret_variable("edm2-store-root")]}]
    ),
    "a second container's Secret": lambda pod: pod["containers"].append(
        {"name": "second", "image": "x", "env": [secret_variable("edm2-store-root")]}
    ),
}


def test_what_the_launcher_makes_is_admitted(installed: str, job: Job) -> None:
    assert applied(job, installed) == ""
    more = copy.deepcopy(job)
    pod_of(more)["volumes"] += [
        {"name": "own", "secret": {"secretName": "edm2-store"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
    ]
    assert applied(more, installed) == ""


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_that_asks_for_more_is_refused_in_words(installed: str, job: Job, change: str) -> None:
    asking = copy.deepcopy(job)
    CHANGES[change](pod_of(asking))
    said = applied(asking, installed)
    assert "edm2-jobs" in said
    assert "its " in said


def test_a_job_that_is_there_cannot_be_changed_to_ask_for_more(installed: str, job: Job) -> None:
    suspended = copy.deepcopy(job)
    suspended["spec"]["runPolicy"]["suspend"] = True
    kubectl("create", "-f", "-", text=json.dumps(suspended))
    name, who = job["metadata"]["name"], f"--as=system:serviceaccount:{installed}:edm2-control"
    try:
        for patch, admitted in (({"metadata": {"annotations": {"a": "b"}}}, True), (other_account(job), False)):
            command = ["kubectl", "-n", installed, "patch", "pytorchjob", name, "--type=merge", who, "-p", json.dumps(patch)]
            ran = subprocess.run(command, capture_output=True, text=True)
            assert (ran.returncode == 0) is admitted, ran.stderr
    finally:
        kubectl("-n", installed, "delete", "pytorchjob", name)


def other_account(job: Job) -> Job:
    changed = copy.deepcopy(job)
    pod_of(changed)["serviceAccountName"] = "default"
    return {"spec": {"pytorchReplicaSpecs": changed["spec"]["pytorchReplicaSpecs"]}}


def test_a_namespace_may_name_other_secrets_and_another_account(installed: str, job: Job) -> None:
    asking = copy.deepcopy(job)
    pod_of(asking)["serviceAccountName"] = "jobs"
    pod_of(asking)["containers"][0]["env"] += [secret_variable("keys"), {**secret_variable("more"), "name": "OTHER"}]
    assert "edm2-jobs" in applied(asking, installed)
    kubectl("annotate", "namespace", installed, "edm2/job-account=jobs", "edm2/job-secrets=keys,more,edm2-store")
    try:
        until(lambda: True if not applied(asking, installed) else None, 30, lambda: applied(asking, installed))
        assert "its pods must run under the account jobs" in applied(job, installed)
    finally:
        kubectl("annotate", "namespace", installed, "edm2/job-account-", "edm2/job-secrets-")
        until(lambda: True if not applied(job, installed) else None, 30, lambda: "the job is not admitted again")


def test_other_namespaces_and_other_accounts_are_none_of_its_business(lab: Lab, job: Job) -> None:
    asking = copy.deepcopy(job)
    asking["metadata"]["namespace"] = lab.namespace
    pod_of(asking)["serviceAccountName"] = "default"
    ran = subprocess.run(["kubectl", "create", "--dry-run=server", "-f", "-"], input=json.dumps(asking), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_people_are_bound_by_their_own_rights_alone(installed: str, job: Job) -> None:
    asking = copy.deepcopy(job)
    pod_of(asking)["serviceAccountName"] = "default"
    ran = subprocess.run(["kubectl", "create", "--dry-run=server", "-f", "-"], input=json.dumps(asking), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
