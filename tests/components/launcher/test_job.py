import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from components.launcher.job import DIGEST, cluster_spec, merged, run_label, to_manifest
from components.launcher.job_kinds.pytorchjob import PyTorchJob
from components.launcher.profile import Profile
from edm2core.plan.tasks import Task

Profiles = Callable[..., Profile]


def job(task: Task, profile: Profile, **options: Any) -> dict[str, Any]:
    return to_manifest(cluster_spec(task, profile.store.uri, profile), profile, **options)


def pod(made: dict[str, Any]) -> dict[str, Any]:
    (kind,) = made["spec"]["pytorchReplicaSpecs"]
    assert kind == "Worker"
    spec: dict[str, Any] = made["spec"]["pytorchReplicaSpecs"][kind]["template"]["spec"]
    return spec


def test_all_pods_are_workers_that_find_each_other_and_restart_by_exit_code(tasks: list[Task], profile: Profiles) -> None:
    spec = job(tasks[1], profile())["spec"]
    assert spec["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2
    assert spec["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "ExitCode"
    elastic = spec["elasticPolicy"]
    assert (elastic["minReplicas"], elastic["maxReplicas"], elastic["maxRestarts"], elastic["rdzvBackend"]) == (2, 2, 0, "c10d")
    assert spec["nprocPerNode"] == "4"


def test_pods_are_what_restricted_podsecurity_admits(tasks: list[Task], profile: Profiles) -> None:
    spec = pod(job(tasks[1], profile()))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False


def test_a_pod_gets_its_share_of_what_the_profile_gives(tasks: list[Task], profile: Profiles) -> None:
    spec = pod(job(tasks[1], profile()))
    resources = spec["containers"][0]["resources"]
    assert resources["limits"] == {"cpu": "32", "memory": "8Gi", "nvidia.com/gpu": "4"} == resources["requests"]
    shm = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"
    environment = {variable["name"]: variable for variable in spec["containers"][0]["env"]}
    assert environment["OMP_NUM_THREADS"]["value"] == "8"


def test_credentials_are_named_never_written(tasks: list[Task], profile: Profiles) -> None:
    environment = {variable["name"]: variable for variable in pod(job(tasks[1], profile()))["containers"][0]["env"]}
    assert environment["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "keys", "key": "secretkey"}}
    assert "AWS_ACCESS_KEY_ID" not in {v["name"] for v in pod(job(tasks[1], profile(store={"uri": "s3://bucket"})))["containers"][0]["env"]}


def test_the_container_runs_the_task_by_the_entry_program(tasks: list[Task], profile: Profiles) -> None:
    container = pod(job(tasks[1], profile()))["containers"][0]
    assert container["name"] == "pytorch"
    words = container["command"] + container["args"]
    assert words[:4] == ["python", "-m", "components.launcher.entry", "--pod"]
    assert words[words.index("--nnodes") + 1] == "2"
    module = words.index("-m", 3)
    assert words[module + 1] == "edm2core.stages.train"
    assert Task.from_json(json.loads(words[module + 2])) == tasks[1]


def test_all_snapshots_of_a_training_have_one_job_of_a_legal_name(tasks: list[Task], profile: Profiles) -> None:
    one, two = (job(task, profile())["metadata"] for task in tasks[1:])
    assert one["name"] == two["name"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", one["name"])
    assert len(one["name"]) <= PyTorchJob.longest_name
    assert one["annotations"][DIGEST] == two["annotations"][DIGEST]


def test_a_changed_profile_is_another_job_and_another_run_is_not(tasks: list[Task], profile: Profiles) -> None:
    digest = job(tasks[1], profile())["metadata"]["annotations"][DIGEST]
    assert job(tasks[1], profile(), run="x-1")["metadata"]["annotations"][DIGEST] == digest
    assert job(tasks[1], profile(grace_s=7))["metadata"]["annotations"][DIGEST] != digest


def test_labels_say_whose_job_it_is_in_words_that_labels_may_have(tasks: list[Task], profile: Profiles) -> None:
    labels = job(tasks[1], profile(queue="gpus"), run="digits-ceg-1a2b3c")["metadata"]["labels"]
    assert labels["edm2/experiment"] == "digits-ceg"
    assert (labels["edm2/recipe"], labels["edm2/seed"], labels["edm2/stage"]) == ("digits-C", "0", "training")
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert labels[run_label("digits-ceg-1a2b3c")] == "yes"
    for name, value in labels.items():
        assert re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", name)
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)


def test_a_run_of_any_length_has_a_legal_label() -> None:
    assert re.fullmatch(r"run\.edm2/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", run_label("-" + "a_" * 40 + "-1a2b3c"))


def test_an_owner_is_the_one_given_or_nobody(tasks: list[Task], profile: Profiles) -> None:
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "1"}
    assert job(tasks[1], profile(), owner=owner)["metadata"]["ownerReferences"] == [owner]
    assert "ownerReferences" not in job(tasks[1], profile())["metadata"]


def test_training_goes_before_evaluation(tasks: list[Task], profile: Profiles) -> None:
    chosen = profile(priority_classes={"training": "high", "evaluation": "low"})
    assert pod(job(tasks[1], chosen))["priorityClassName"] == "high"
    assert pod(job(tasks[0], chosen))["priorityClassName"] == "low"


def test_the_profiles_patch_reaches_into_the_container(tasks: list[Task], profile: Profiles) -> None:
    patch = {"hostNetwork": True, "containers": [{"name": "pytorch", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}]}
    spec = pod(job(tasks[1], profile(patch=patch)))
    assert spec["hostNetwork"] is True
    (container,) = spec["containers"]
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
    assert container["image"] == "registry/compute:1"


@pytest.mark.parametrize(
    ("below", "above", "both"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ([{"name": "x", "v": 1}], [{"name": "y"}, {"name": "x", "v": 2}], [{"name": "x", "v": 2}, {"name": "y"}]),
        ({}, {"a": None}, {}),
    ],
)
def test_a_patch_merges_by_name_and_null_deletes(below: Any, above: Any, both: Any) -> None:
    assert merged(below, above) == both
