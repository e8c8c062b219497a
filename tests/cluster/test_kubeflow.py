"""Component bodies in the control image, run by KFP's executor under the account and the Role of k8s/base."""

import json
import math
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.launcher.job import run_label
from components.launcher.job_kinds import KINDS
from components.launcher.profile import load_profile
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import plan
from edm2core.store import Store, open_store
from edm2core.store.results import load, verify
from edm2core.store.runs import load_plan, run_id
from pipelines.cli.cancel import saved_states
from pipelines.inputs.user_files import resolve
from pipelines.kubeflow.compiler import compile
from tests.cluster.kubeflow import Kubeflow
from tests.cluster.lab import kubectl, until

pytestmark = pytest.mark.cluster
EXPERIMENT = {
    "name": "bodies",
    "recipes": ["digits/C"],
    "epochs": [3],
    "sample": {"count": 128, "steps": 3},
    "metrics": ["fd"],
    "probe": {"epochs": 1},
}
ACCOUNT = "edm2-control"
KIND_OF = {kind.word: kind for kind in KINDS}
BOTH = list(KIND_OF)
LONG = {"epochs": [400], "metrics": [], "probe": False, "overrides": {"training.epochs": 400}}
TERMINATE = """
import glob, os, signal
bodies = [int(p.split("/")[2]) for p in glob.glob("/proc/[0-9]*/cmdline") if b"components.kubeflow" in open(p, "rb").read()]
for body in bodies:
    if body not in (1, os.getpid()):  # 1 stands in for Argo's process and KFP's launcher
        os.kill(body, signal.SIGTERM)
"""  # as Argo does when Kubeflow terminates a run


@pytest.fixture(scope="module")
def workflow(installed: str) -> Iterator[dict[str, Any]]:
    """An ownerReference to an Argo Workflow; only the kind of object is there, nobody acts on it."""
    kubectl("apply", "-f", "-", text=json.dumps(WORKFLOWS))
    kubectl("wait", "--for=condition=Established", "crd/workflows.argoproj.io", "--timeout=60s")
    name = f"bodies-{secrets.token_hex(3)}"
    made = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": installed}}
    kubectl("apply", "-f", "-", text=json.dumps(made))
    uid = kubectl("-n", installed, "get", "workflow", name, "-o", "jsonpath={.metadata.uid}")
    yield {"apiVersion": made["apiVersion"], "kind": "Workflow", "name": name, "uid": uid}
    kubectl("delete", "crd", "workflows.argoproj.io", "--wait=false")


def test_every_body_does_its_task_and_publishes_it(
    installed: str, workflow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, run, store = compiled(installed, tmp_path, monkeypatch, job=None)
    kubeflow = Kubeflow(package, installed, ACCOUNT, workflow)
    kubeflow.run()
    by_stage = {ref_stage(title): ended for title, ended in kubeflow.ended.items()}
    assert len(kubeflow.ended) == 10
    for title, ended in kubeflow.ended.items():
        assert "Traceback" not in ended.text, title
        for name, artifact in ended.artifacts.items():
            if "/results/" in artifact["metadata"].get("location", ""):
                stage, key, attempt = artifact["metadata"]["location"].split("/")[-3:]
                manifest = load(store, Ref(stage, key))
                assert manifest is not None
                assert (manifest.attempt, verify(store, manifest)) == (attempt, []), title
                assert manifest.ref.manifest in ended.files[name].decode()
    assert math.isfinite(by_stage["FD"].artifacts["FD"]["metadata"]["fd_digits"])
    confusion = by_stage["probe"].artifacts["confusion"]["metadata"]["confusionMatrix"]
    assert len(confusion["rows"]) == 10
    assert b"data:image/png;base64," in by_stage["samples"].files["pictures"]
    assert b"<svg" in by_stage["train"].files["curves"]
    assert "Jobs are PyTorchJobs. This cluster knows TrainJob too" in by_stage["missing"].text
    assert b"FD" in by_stage["report"].files["page"]
    assert store.read(f"runs/{run}/report.html") == by_stage["report"].files["page"]
    jobs = json.loads(kubectl("-n", installed, "get", "pytorchjobs", "-l", f"{run_label(run)}=yes", "-o", "json"))["items"]
    assert {job["metadata"]["ownerReferences"][0]["uid"] for job in jobs} == {workflow["uid"]}
    kubectl("-n", installed, "delete", "workflow", workflow["name"])
    until(
        lambda: None if kubectl("-n", installed, "get", "pytorchjobs", "-l", f"{run_label(run)}=yes", "-o", "name") else True,
        60,
        lambda: "jobs are left without their Workflow",
    )


@pytest.mark.slow  # not in itself, but it holds the body to a fraction of a second, which a busy machine may not give it
@pytest.mark.parametrize("job", BOTH)
def test_a_terminated_body_has_its_job_suspended_before_it_is_gone(
    installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    package, run, store = compiled(installed, tmp_path, monkeypatch, **LONG, job=job)
    kubeflow, pod = training_pod(installed, package)
    subprocess.run(["kubectl", "-n", installed, "exec", pod, "--", "python3", "-c", TERMINATE])  # it may die with the pod
    assert f"Jobs are {KIND_OF[job].name}s, as the profile says." in kubeflow.first.text
    made = the_job(installed, run, job)
    assert KIND_OF[job].is_suspended(made)
    until(lambda: None if pods_of(installed, made) else True, 60, lambda: "pods are left")
    assert [age for age in saved_states(store, load_plan(store, run)[1], [made["metadata"]["name"]]).values() if age is not None]
    assert "Traceback" not in kubeflow.log(pod)


@pytest.mark.slow
@pytest.mark.parametrize("job", BOTH)
def test_cancel_stops_jobs_that_nobody_follows_and_says_what_was_saved(
    installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    package, run, _ = compiled(installed, tmp_path, monkeypatch, **LONG, name=f"cancelled-{job}", job=job)
    _, pod = training_pod(installed, package)
    kubectl("-n", installed, "delete", "pod", pod, "--grace-period=0", "--force")
    command = [sys.executable, "-m", "pipelines.cli.main", "cancel", run, "--cluster", str(tmp_path / "cluster.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    made = the_job(installed, run, job)
    assert f"{made['metadata']['name']} is stopping" in done.stdout
    assert "1 jobs stopped" in done.stdout
    assert "its state was saved" in done.stdout
    assert KIND_OF[job].is_suspended(made)
    assert not pods_of(installed, made)


def training_pod(namespace: str, package: Path) -> tuple[Kubeflow, str]:
    """The package's training, begun; the pod that follows it."""
    kubeflow = Kubeflow(package, namespace, ACCOUNT)
    kubeflow.begin()
    before = kubeflow.pod_of("digits · prepare data")
    until(lambda: True if kubeflow.phase(before) == "Succeeded" else None, 120, lambda: kubeflow.log(before))
    pod = kubeflow.pod_of("ep 400 · train", "C · seed 0")
    until(lambda: True if "% " in kubeflow.log(pod) else None, 120, lambda: kubeflow.log(pod))
    return kubeflow, pod


def the_job(namespace: str, run: str, job: str) -> dict[str, Any]:
    """The run's one training job."""
    selector = f"{run_label(run)}=yes,edm2/stage=training"
    (made,) = json.loads(kubectl("-n", namespace, "get", KIND_OF[job].plural, "-l", selector, "-o", "json"))["items"]
    return dict(made)


def pods_of(namespace: str, job: dict[str, Any]) -> str:
    labels = KIND_OF[job["kind"].lower()].pod_labels(job["metadata"]["name"])
    return kubectl("-n", namespace, "get", "pods", "-l", ",".join(f"{name}={value}" for name, value in labels.items()), "-o", "name")


def compiled(namespace: str, folder: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, **changes: Any) -> tuple[Path, str, Store]:
    """The experiment's package for that namespace and that kind of job, its run, and its store as seen from here."""
    address = kubectl("-n", namespace, "get", "service", "minio", "-o", "jsonpath={.spec.clusterIP}")
    values = {"EDM2_S3_ENDPOINT": f"http://{address}:9000", "AWS_ACCESS_KEY_ID": "edm2-lab", "AWS_SECRET_ACCESS_KEY": "edm2-lab-only"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    lab = load_profile("lab")
    uri = f"s3://edm2/{secrets.token_hex(3)}"
    profile = lab.model_copy(update={"namespace": namespace, "job": job, "store": lab.store.model_copy(update={"uri": uri})})
    (folder / "cluster.yaml").write_text(profile.dumps())
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({**EXPERIMENT, **changes}))
    experiment = load_experiment(file)
    tasks = plan(experiment, resolve(experiment))
    run = run_id(experiment, tasks)
    (package,) = compile(tasks, experiment, run, profile, uri)
    package.write(folder / "package.yaml")
    return folder / "package.yaml", run, open_store(uri)


def ref_stage(title: str) -> str:
    """What a task does, by a word of its title."""
    return next(
        (word for word in ("report", "missing", "train", "samples", "FD", "probe", "pixels", "statistics", "extractor") if word in title),
        title,
    )


WORKFLOWS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workflows.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "names": {"kind": "Workflow", "listKind": "WorkflowList", "plural": "workflows", "singular": "workflow"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
