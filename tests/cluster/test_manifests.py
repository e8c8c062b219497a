"""The manifests on a real cluster: applied to nothing, they carry a job that kubectl alone starts; and doctor sees what is missing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.launcher.job_kinds import KINDS, JobKind, kind_of
from components.launcher.profile import load_profile
from edm2core.config import load_recipe
from edm2core.plan.manifest import Ref
from edm2core.store import open_store
from edm2core.store.results import load, verify
from pipelines.doctor.cluster import rights
from tests.cluster.lab import kubectl, until

pytestmark = pytest.mark.cluster
K8S = Path(__file__).parents[2] / "k8s"


@pytest.fixture
def profile(installed: str, tmp_path: Path) -> str:
    file = tmp_path / "lab.yaml"
    file.write_text(json.dumps({**json.loads(load_profile("lab").dumps()), "namespace": installed}))
    return str(file)


def doctor(profile: str) -> tuple[int, str]:
    ran = subprocess.run([sys.executable, "-m", "pipelines.cli.main", "doctor", "--cluster", profile], capture_output=True, text=True)
    assert not ran.stderr
    return ran.returncode, ran.stdout


def test_doctor_finds_nothing_wrong_and_leaves_nothing_behind(installed: str, profile: str) -> None:
    code, said = doctor(profile)
    assert code == 0, said
    assert f"all {len(rights(kind_of(None)))} rights that k8s/base grants" in said
    assert "both images can be pulled by a pod" in said
    assert "from a pod: the store refuses a second writer" in said
    assert "doctor" not in kubectl("-n", installed, "get", "pods", "-o", "name")


def test_doctor_names_the_right_that_is_missing(installed: str, profile: str) -> None:
    rule = {"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["get", "list", "create", "delete"]}
    before = json.loads(kubectl("-n", installed, "get", "role", "edm2-control", "-o", "json"))["rules"]
    kubectl(
        "-n",
        installed,
        "patch",
        "role",
        "edm2-control",
        "--type=json",
        "-p",
        json.dumps([{"op": "replace", "path": "/rules/0", "value": rule}]),
    )
    try:
        code, said = doctor(profile)
    finally:
        kubectl("-n", installed, "patch", "role", "edm2-control", "--type=merge", "-p", json.dumps({"rules": before}))
    assert code == 1
    assert "edm2-control may not: patch pytorchjobs" in said


def test_doctor_names_an_image_that_cannot_be_pulled(profile: str) -> None:
    values = json.loads(Path(profile).read_text())
    values["images"]["compute"] = "localhost:5000/no-such-image:dev"
    Path(profile).write_text(json.dumps(values))
    code, said = doctor(profile)
    assert code == 1
    assert "localhost:5000/no-such-image:dev cannot be pulled" in said


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind is not KINDS[0] else [], id=kind.word) for kind in KINDS]
)
def test_one_apply_trains_without_python_on_the_client(installed: str, monkeypatch: pytest.MonkeyPatch, kind: JobKind) -> None:
    text = (K8S / kind.plural / "digits-C.yaml").read_text().replace("namespace: edm2\n", f"namespace: {installed}\n")
    _, job = yaml.safe_load_all(text)
    name = job["metadata"]["name"]
    kubectl("apply", "-f", "-", text=text)
    until(lambda: True if kind.ending(_job(installed, kind, name)) else None, 600, lambda: kubectl("-n", installed, "get", "pods,events"))
    address = kubectl("-n", installed, "get", "service", "minio", "-o", "jsonpath={.spec.clusterIP}")
    secret = {"EDM2_S3_ENDPOINT": f"http://{address}:9000", "AWS_ACCESS_KEY_ID": "edm2-lab", "AWS_SECRET_ACCESS_KEY": "edm2-lab-only"}
    for variable, value in secret.items():
        monkeypatch.setenv(variable, value)
    pods = job["spec"]["trainer"] if kind is KINDS[1] else job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    arguments = pods["args"]
    store = open_store(arguments[arguments.index("--store") + 1])
    manifest = load(store, Ref("snapshot", json.loads(arguments[2])["key"]))
    assert manifest is not None
    assert verify(store, manifest) == []
    assert manifest.metadata["epoch"] == load_recipe("digits/C").training.epochs
    assert manifest.provenance["world_size"] == 2
    assert manifest.provenance["code_version"].partition("+")[2] not in ("", "unknown")


def _job(namespace: str, kind: JobKind, name: str) -> dict[str, Any]:
    return dict(json.loads(kubectl("-n", namespace, "get", kind.word, name, "-o", "json")))
