"""What is applied to a cluster: it builds, grants what is used and no more, and is admitted where PodSecurity "restricted" is enforced."""

import ipaddress
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.launcher.job import SELECTOR
from components.launcher.job_kinds import KINDS
from components.launcher.profile import ServiceAccounts, load_profile
from edm2core.plan.stages import STAGES
from pipelines.doctor.cluster import KFP_RIGHTS, Right, rights
from pipelines.kubeflow.compiler import CONTROL

K8S = Path(__file__).parents[2] / "k8s"
FOLDERS = [K8S / "base", *sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))]

# What IANA's registries of special-purpose addresses list as not globally reachable, and multicast.
RESERVED = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
    *(
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001:2::/48",
        "2001:db8::/32",
        "3fff::/20",
        "fc00::/7",
        "fe80::/10",
    ),
)
Object = dict[str, Any]
pytestmark = pytest.mark.needs("kubectl")


def build(folder: Path) -> list[Object]:
    ran = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [document for document in yaml.safe_load_all(ran.stdout) if document]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return build(request.param)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def pods(objects: list[Object]) -> list[Object]:
    return [one["spec"]["template"]["spec"] for one in of_kind(objects, "Deployment")]


@pytest.fixture(scope="module")
def every_pod() -> list[Object]:
    """The pods of every folder; some have none."""
    found = [pod for folder in FOLDERS for pod in pods(build(folder))]
    assert len(found) > 1
    return found


def granted(objects: list[Object]) -> set[Right]:
    return {
        (group, resource, verb, name)
        for role in of_kind(objects, "Role")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def test_everything_is_in_one_namespace(objects: list[Object]) -> None:
    clusterwide = {"Namespace", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert len({one["metadata"]["namespace"] for one in objects if one["kind"] not in clusterwide}) == 1


@pytest.mark.parametrize("name", ["lab", "gpu"])
def test_a_profile_names_the_namespace_that_its_overlay_makes(name: str) -> None:
    (namespace,) = of_kind(build(K8S / "overlays" / name), "Namespace")
    assert load_profile(name).namespace == namespace["metadata"]["name"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_roles_grant_exactly_the_rights_that_doctor_checks(objects: list[Object]) -> None:
    machinery = {binding["metadata"]["name"] for binding in of_kind(objects, "RoleBinding")} & {"edm2-kfp"}
    assert granted(objects) == {right for kind in KINDS for right in rights(kind)} | (set(KFP_RIGHTS) if machinery else set())
    assert of_kind(objects, "ClusterRole") == of_kind(objects, "ClusterRoleBinding") == []


def test_nobody_here_may_make_or_change_what_trainjobs_run_in(objects: list[Object]) -> None:
    assert not {right for right in granted(objects) if "runtimes" in right[1] or right[1] in ("jobsets", "jobs")}


def test_a_cluster_without_trainer_can_be_given_everything_else(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [os.path.relpath(K8S / "overlays" / "gpu", tmp_path)],
                "components": [os.path.relpath(K8S / "components" / "without-trainer", tmp_path)],
            }
        )
    )
    left, all_of_it = build(tmp_path), build(K8S / "overlays" / "gpu")
    assert {one["kind"] for one in all_of_it} - {one["kind"] for one in left} == {"TrainingRuntime"}
    assert len(all_of_it) - len(left) == len(of_kind(all_of_it, "TrainingRuntime")) == 3


def test_there_is_an_admission_policy_for_each_kind_of_job_and_each_is_in_force() -> None:
    objects = build(K8S / "overlays" / "gpu")
    policies = {one["metadata"]["name"] for one in of_kind(objects, "ValidatingAdmissionPolicy")}
    bound = {one["spec"]["policyName"] for one in of_kind(objects, "ValidatingAdmissionPolicyBinding")}
    assert policies == bound == {kind.policy for kind in KINDS} | {"edm2-runtimes"}


def test_what_kubeflows_machinery_needs_is_granted_where_it_runs() -> None:
    assert set(KFP_RIGHTS) <= granted(build(K8S / "overlays" / "kubeflow"))


def test_only_control_pods_have_rights(objects: list[Object]) -> None:
    accounts = ServiceAccounts()
    assert {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")} == {accounts.job, accounts.control}
    assert {s["name"] for binding in of_kind(objects, "RoleBinding") for s in binding["subjects"]} == {accounts.control}


def test_pods_are_admitted_where_restricted_is_enforced(every_pod: list[Object]) -> None:
    for pod in every_pod:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod["initContainers"]]:
            context = container["securityContext"]
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_pods_say_what_they_need_so_that_a_quota_admits_them(every_pod: list[Object]) -> None:
    for pod in every_pod:
        for container in [*pod["containers"], *pod["initContainers"]]:
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) == {"cpu", "memory"}


def test_job_pods_reach_only_each_other_names_and_the_store() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(build(K8S / "base"), "NetworkPolicy")}
    job = policies["edm2-job"]
    assert job["podSelector"]["matchLabels"] == SELECTOR
    assert set(job["policyTypes"]) == {"Ingress", "Egress"}
    each_other = [{"podSelector": {"matchLabels": SELECTOR}}]
    assert job["ingress"] == [{"from": each_other}]
    assert job["egress"] == [{"to": each_other}]
    assert policies["edm2-control"]["podSelector"]["matchLabels"] == CONTROL
    both = policies["edm2-store"]["egress"]
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in both] == [[53], [9000], [8333, 9000]]
    api_server, *machinery = policies["edm2-control"]["egress"]
    assert {port["port"] for port in api_server["ports"]} == {443, 6443}
    labels = [rule["to"][0]["podSelector"]["matchLabels"] for rule in machinery]
    assert labels == [{"component": "metadata-grpc-server"}, {"app": "ml-pipeline"}]  # as Kubeflow Pipelines' manifests label them
    assert [{port["port"] for port in rule["ports"]} for rule in machinery] == [{8080}, {8887, 8888}]
    assert all("ingress" not in policies[name] for name in ("edm2-control", "edm2-store"))


def test_no_password_is_applied_but_to_a_throw_away_cluster() -> None:
    assert {folder.name for folder in FOLDERS if of_kind(build(folder), "Secret")} == {"lab"}


def test_the_lab_needs_no_storage_class_and_only_its_own_registry() -> None:
    objects = build(K8S / "overlays" / "lab")
    assert of_kind(objects, "PersistentVolumeClaim") == []
    (pod,) = pods(objects)
    assert all(container["image"].startswith("localhost:5000/") for container in [*pod["containers"], *pod["initContainers"]])
    profile, secrets = load_profile("lab"), {secret["metadata"]["name"]: set(secret["data"]) for secret in of_kind(objects, "Secret")}
    assert secrets == {profile.store.secret: set(profile.store.secret_env.values()), "edm2-store-root": {"user", "password"}}


def test_pods_that_work_never_hold_the_root_users_password() -> None:
    for name in ("lab", "gpu"):
        assert load_profile(name).store.secret == "edm2-store"
    (pod,) = pods(build(K8S / "overlays" / "minio"))
    root = {"MINIO_ROOT_USER": "edm2-store-root", "MINIO_ROOT_PASSWORD": "edm2-store-root"}
    for container in pod["containers"]:
        secrets = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if "valueFrom" in one}
        assert secrets.items() >= root.items()
        assert {secrets[name] for name in secrets if name not in root} <= {"edm2-store"}


def test_only_stages_that_read_something_published_may_download_and_only_from_the_internet() -> None:
    (policy,) = [
        one["spec"] for one in of_kind(build(K8S / "overlays" / "gpu"), "NetworkPolicy") if one["metadata"]["name"] == "edm2-downloads"
    ]
    ((expression,),) = [policy["podSelector"]["matchExpressions"]]
    reading = {file.stem for file in (K8S.parent / "edm2core" / "stages").glob("*.py") if "edm2core.worker.fetching" in file.read_text()}
    assert set(expression["values"]) == reading == {stage.name for stage in STAGES.values() if stage.reads_sources}
    (rule,) = policy["egress"]
    for to in rule["to"]:
        allowed = ipaddress.ip_network(to["ipBlock"]["cidr"])
        out = [ipaddress.ip_network(block) for block in to["ipBlock"]["except"]]
        for text in RESERVED:
            reserved = ipaddress.ip_network(text)
            if reserved.version == allowed.version and reserved.subnet_of(allowed):
                assert any(reserved.subnet_of(block) for block in out), text
        assert not any(ipaddress.ip_address(public) in block for public in ("8.8.8.8", "128.100.3.30") for block in out)


def test_base_images_are_named_by_digest() -> None:
    text = (K8S.parent / "docker" / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.+)$", text, re.M)
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", base)
    assert {line.split()[1] for line in text.splitlines() if line.startswith("FROM")} <= {"${BASE_IMAGE}", "${TARGET}", "base"}


def test_the_store_of_the_manifests_is_the_one_of_the_profiles() -> None:
    objects = build(K8S / "overlays" / "minio")
    (service,) = of_kind(objects, "Service")
    (pod,) = pods(objects)
    for name in ("lab", "gpu"):
        store = load_profile(name).store
        assert store.env["EDM2_S3_ENDPOINT"] == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
        assert f"/data/{store.uri.split('/')[2]}" in pod["initContainers"][0]["command"]


def test_priorities_named_by_the_gpu_profile_exist_and_training_comes_first() -> None:
    classes = {one["metadata"]["name"]: one["value"] for one in of_kind(build(K8S / "overlays" / "gpu"), "PriorityClass")}
    names = load_profile("gpu").priority_classes
    assert classes[str(names.training)] > classes[str(names.evaluation)]
