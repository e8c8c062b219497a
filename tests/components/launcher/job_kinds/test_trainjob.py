"""What is peculiar to TrainJobs: the runtime that they name, what they patch of it, and how their state is read."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from components.launcher.cluster import ClusterError, choose_kind
from components.launcher.job import DIGEST, cluster_spec, pod_template, prerequisites, to_manifest
from components.launcher.job_kinds import KINDS, kind_of
from components.launcher.job_kinds.trainjob import PATCHED, TrainJob
from components.launcher.profile import Profile
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task

Object = dict[str, Any]
Profiles = Callable[..., Profile]
KIND = TrainJob()


@pytest.fixture
def profile(profile: Profiles) -> Profiles:
    """A profile whose jobs are TrainJobs, with some of its settings replaced."""
    return lambda **changes: profile(job="trainjob", **changes)


def job(task: Task, profile: Profile, **options: Any) -> Object:
    return to_manifest(cluster_spec(task, profile.store.uri, profile), profile, **options)


def patched(made: Object) -> Object:
    """The pods' template in the one patch of the runtime."""
    (patch,) = made["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template: Object = replicated["template"]["spec"]["template"]
    return template


def of_runtime(runtime: Object) -> Object:
    """The Job in a runtime."""
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    made: Object = replicated["template"]["spec"]
    return made


def test_a_profile_chooses_the_kind_and_without_its_word_it_is_pytorchjob(profile: Profiles) -> None:
    assert kind_of(profile()).name == "TrainJob"
    assert kind_of(None).name == "PyTorchJob"
    words = Profile.model_json_schema()["properties"]["job"]["anyOf"][0]["enum"]
    assert words == [kind.word for kind in KINDS]


@pytest.mark.parametrize(
    ("known", "name", "words"),
    [
        (KINDS, "PyTorchJob", "This cluster knows TrainJob too; `job: trainjob` in the profile chooses it."),
        (KINDS[:1], "PyTorchJob", "the only kind"),
        (KINDS[1:], "TrainJob", "the only kind"),
    ],
)
def test_without_a_profiles_word_the_cluster_decides_and_it_is_said(known: tuple[Any, ...], name: str, words: str) -> None:
    kind, choice = choose_kind(list(known), "here")
    assert kind.name == name
    assert words in choice


def test_a_cluster_that_knows_no_kind_of_job_says_what_to_install() -> None:
    with pytest.raises(ClusterError, match=r"neither PyTorchJob nor TrainJob: .*\n(.*\n)*.*Trainer 2\.2"):
        choose_kind([], "here")


def test_what_a_pod_is_comes_whole_from_the_job_and_its_runtime(tasks: list[Task], profile: Profiles) -> None:
    """Nothing of the pod's template is lost between both, and nothing stands in both."""
    rich = profile(
        tolerations=[{"key": "gpu", "operator": "Exists"}],
        node_selector={"zone": "a"},
        priority_classes={"training": "high", "evaluation": "low"},
        patch={"schedulerName": "volcano", "containers": [{"name": "pytorch", "resources": {"limits": {"rdma/hca": "1"}}}]},
    )
    made = job(tasks[1], rich)
    spec, trainer = patched(made)["spec"], made["spec"]["trainer"]
    (runtime,) = [one for one in prerequisites(rich) if one["metadata"]["name"] == made["spec"]["runtimeRef"]["name"]]
    below = of_runtime(runtime)["template"]["spec"]
    whole = pod_template(cluster_spec(tasks[1], rich.store.uri, rich), rich)["spec"]
    (container,), (first,), (own,) = whole.pop("containers"), below.pop("containers"), spec.pop("containers")
    assert below.pop("restartPolicy") == "Never"
    assert {**below, **spec} == whole
    assert not set(below) & set(spec)
    assert set(spec) <= set(PATCHED)
    resources, others = trainer["resourcesPerNode"], {part: trainer[part] for part in ("image", "command", "args", "env")}
    assert {**first, **own, **others, "resources": resources} == container
    assert resources["limits"]["rdma/hca"] == "1"
    assert below["schedulerName"] == "volcano"


def test_nodes_and_processes_are_those_of_the_profile(tasks: list[Task], profile: Profiles) -> None:
    made = job(tasks[1], profile())
    assert (made["spec"]["trainer"]["numNodes"], made["spec"]["trainer"]["numProcPerNode"]) == (2, 4)
    assert KIND.pods_wanted(made) == 2
    assert "PET" not in str([variable["name"] for variable in made["spec"]["trainer"]["env"]])  # the controller refuses those


def test_labels_of_the_job_are_those_of_its_pods_so_that_policies_select_them(tasks: list[Task], profile: Profiles) -> None:
    made = job(tasks[1], profile(queue="gpus"))
    assert made["metadata"]["labels"].items() <= patched(made)["metadata"]["labels"].items()
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_a_runtimes_name_changes_with_what_it_holds_and_only_then(profile: Profiles) -> None:
    def names(**changes: Any) -> set[str]:
        return {runtime["metadata"]["name"] for runtime in prerequisites(profile(**changes))}

    usual = names()
    assert len(usual) == 1
    assert names(resources={"default": {"memory": "1Gi", "work": "1Gi"}}, node_selector={"a": "b"}, queue="q", ttl_s=1) == usual
    assert names(grace_s=7) != usual
    assert names(patch={"schedulerName": "volcano"}) != usual
    assert len(names(priority_classes={"training": "high", "evaluation": "low"})) == 2
    assert all(re.fullmatch(r"edm2-[0-9a-f]{8}", name) for name in usual)


def test_a_pod_ends_the_job_only_by_an_error_of_its_own_and_the_first_that_ends_well_ends_it_too(profile: Profiles) -> None:
    (runtime,) = prerequisites(profile())
    made = of_runtime(runtime)
    fails, ignored, disrupted = made["podFailurePolicy"]["rules"]
    assert (fails["action"], fails["onExitCodes"]["values"]) == ("FailJob", list(range(1, 128)))
    assert (ignored["action"], ignored["onExitCodes"]["operator"], ignored["onExitCodes"]["values"]) == ("Ignore", "NotIn", [0])
    assert disrupted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert made["successPolicy"] == {"rules": [{"succeededCount": 1}]}
    assert made["podReplacementPolicy"] == "Failed"
    assert runtime["spec"]["template"]["spec"]["failurePolicy"] == {"maxRestarts": 0}


def test_pods_are_what_restricted_podsecurity_admits(profile: Profiles) -> None:
    (runtime,) = prerequisites(profile())
    spec = of_runtime(runtime)["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert "initContainers" not in spec
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_stages_job_has_names_that_kubernetes_takes(tasks: list[Task], profile: Profiles) -> None:
    longest = max(map(len, STAGES))
    name = job(tasks[1], profile())["metadata"]["name"]
    assert len(name) - len("trajectory") + max(longest, len("trajectory")) <= KIND.longest_name
    assert len(f"{'x' * KIND.longest_name}-node-0-99-abcde") == 63


def test_a_changed_profile_is_another_job_and_another_run_or_snapshot_is_not(tasks: list[Task], profile: Profiles) -> None:
    digest = job(tasks[1], profile())["metadata"]["annotations"][DIGEST]
    assert job(tasks[1], profile(), run="x-1")["metadata"]["annotations"][DIGEST] == digest
    assert job(tasks[2], profile())["metadata"]["annotations"][DIGEST] == digest
    for change in ({"grace_s": 7}, {"node_selector": {"a": "b"}}, {"resources": {"snapshot": {"nodes": 3}}}):
        assert job(tasks[1], profile(**change))["metadata"]["annotations"][DIGEST] != digest


def test_a_state_is_read_from_conditions_that_are_true(tasks: list[Task], profile: Profiles) -> None:
    made = job(tasks[1], profile())
    assert KIND.ending(made) is None

    def ended(*conditions: Object) -> Any:
        return KIND.ending({**made, "status": {"conditions": list(conditions)}})

    assert ended({"type": "Suspended", "status": "True"}, {"type": "Complete", "status": "False"}) is None
    assert ended({"type": "Complete", "status": "True"}).succeeded
    failed = ended({"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "TrainJob ran too long"})
    assert (failed.succeeded, failed.message) == (False, "TrainJob ran too long")


def test_whether_it_is_suspended_stands_in_its_spec_since_the_condition_lags_behind(tasks: list[Task], profile: Profiles) -> None:
    made = {**job(tasks[1], profile()), "status": {"conditions": [{"type": "Suspended", "status": "True"}]}}
    assert not KIND.is_suspended(made)
    made["spec"] |= KIND.suspension(True)["spec"]
    assert KIND.is_suspended(made)


def test_a_replaced_pod_has_another_name_and_the_same_index() -> None:
    assert (
        KIND.pod_index("edm2-trajectory-1a2b-98efa1-node-0-1-x7k2p") == KIND.pod_index("edm2-trajectory-1a2b-98efa1-node-0-1-q9z4m") == "1"
    )


def test_events_of_what_is_made_of_the_job_count_if_they_are_no_older_than_it(tasks: list[Task], profile: Profiles) -> None:
    made = job(tasks[1], profile())
    made["metadata"] |= {"uid": "u", "creationTimestamp": "2026-01-01T00:01:00Z"}
    event = {
        "involvedObject": {"kind": "Job", "name": f"{made['metadata']['name']}-node-0", "uid": "another"},
        "metadata": {},
        "lastTimestamp": "2026-01-01T00:01:05Z",
    }
    assert KIND.concerns(made, event)
    old, other = copy.deepcopy(event), copy.deepcopy(event)
    old["lastTimestamp"] = "2026-01-01T00:00:05Z"  # about an earlier job of this name
    other["involvedObject"]["name"] = "other-node-0"
    assert not KIND.concerns(made, old)
    assert not KIND.concerns(made, other)


@pytest.mark.parametrize(
    "refusal",
    [
        "admission webhook \"vtrainjob.kb.io\" denied the request: runtime 'edm2-1a2b3c4d' not found",
        'spec.RuntimeRef: Invalid value: "edm2-1a2b3c4d": specified trainingRuntime must be created before the TrainJob is created',
    ],
)
def test_a_missing_runtime_is_named_with_the_way_to_it(tasks: list[Task], profile: Profiles, refusal: str) -> None:
    made = job(tasks[1], profile())
    words = KIND.in_words(made, refusal)
    assert words is not None
    assert (
        words[0] == f"The namespace team has no TrainingRuntime {made['spec']['runtimeRef']['name']}, which TrainJobs of this profile name."
    )
    assert "edm2 render --runtimes" in words[1]
    assert KIND.in_words(made, "exceeded quota") is None
