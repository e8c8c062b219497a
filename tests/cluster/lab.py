"""A namespace of a real cluster with a MinIO, and followers of jobs in it.

Wanted: KUBECONFIG of a cluster with the training operator and Kubeflow Trainer, whose pods' and Services' addresses can be reached from
here, and a compute image that its nodes can pull (EDM2_TEST_IMAGE; default: the lab profile's).
"""

import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from minio import Minio
from minio.error import MinioException
from safetensors.numpy import load_file

from components.execute import execute
from components.launcher.cluster import Cluster
from components.launcher.cluster_backend import ClusterBackend
from components.launcher.job import SELECTOR, cluster_spec, merged, prerequisites, selector
from components.launcher.job_kinds import KINDS, JobKind, kind_of
from components.launcher.local import LocalBackend
from components.launcher.log_store import log_folder
from components.launcher.profile import Profile, load_profile
from components.launcher.spec import spec_of
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store import Store, open_store
from edm2core.store.runs import Run

IMAGE = os.environ.get("EDM2_TEST_IMAGE", "")
MINIO = os.environ.get("EDM2_TEST_MINIO_IMAGE", "localhost:5000/minio:lab")
USER, PASSWORD = "edm2", "edm2-test-password"
K8S = Path(__file__).parents[2] / "k8s"
EPOCHS = 10  # of the training that faults are to leave as it is


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class Undisturbed(NamedTuple):
    """What a training is where nothing goes wrong."""

    store: Store
    manifest: Manifest


class Lab:
    """One namespace, enforcing "restricted" PodSecurity, and its store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.namespace = folder, f"edm2-test-{secrets.token_hex(3)}"
        self.data = Path("/var/tmp", self.namespace)  # the store's, on the node; no other session of pytest clears it
        self._runtimes = set[str]()  # names of the TrainingRuntimes that are there
        self.endpoint = ""  # of the store, from here
        self.image = IMAGE
        self.minio_namespace = f"{self.namespace}-store"

    def up(self) -> None:
        kubectl("create", "namespace", self.namespace)
        kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        kubectl("create", "namespace", self.minio_namespace)
        self.apply(*_minio(self.minio_namespace, self.data))
        self._pull(self.profile().images.compute)
        kubectl("-n", self.minio_namespace, "rollout", "status", "deployment/minio", "--timeout=120s")
        address = kubectl("-n", self.minio_namespace, "get", "service", "minio", "-o", "jsonpath={.spec.clusterIP}")
        self.endpoint = f"http://{address}:9000"
        os.environ.update({"EDM2_S3_ENDPOINT": self.endpoint, "AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD})
        for policies in ("base/networkpolicies", "overlays/lab/dns"):
            kubectl("-n", self.namespace, "apply", "-f", f"{K8S / policies}.yaml")
        self.apply(
            store_elsewhere(
                self.namespace, {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.minio_namespace}}}, 9000
            ),
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "edm2-job", "namespace": self.namespace}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "edm2-store", "namespace": self.namespace},
                "stringData": {"accesskey": USER, "secretkey": PASSWORD},
            },
        )
        until(lambda: _made_bucket(Minio(f"{address}:9000", USER, PASSWORD, secure=False)), 60, lambda: "MinIO does not answer")

    def _pull(self, image: str) -> None:
        """Have the image on the node, so that no test's time is spent on that. Jobs name it by its digest from then on: a tag may move."""
        kubectl("-n", self.minio_namespace, "run", "pull", "--image", image, "--restart=Never", "--command", "--", "true")
        kubectl("-n", self.minio_namespace, "wait", "pod/pull", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s")
        pulled = kubectl("-n", self.minio_namespace, "get", "pod", "pull", "-o", "jsonpath={.status.containerStatuses[0].imageID}")
        self.image = pulled if "@sha256:" in pulled else image

    def down(self) -> None:
        kubectl("delete", "namespace", self.namespace, self.minio_namespace, "--wait=false")
        shutil.rmtree(self.data, ignore_errors=True)

    def queue(self) -> str:
        """A LocalQueue for the namespace, in the ClusterQueue `lab`."""
        made = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "lab", "namespace": self.namespace}}
        self.apply({**made, "spec": {"clusterQueue": "lab"}})
        return "lab"

    def apply(self, *objects: dict[str, Any]) -> None:
        if not objects:
            return
        until(lambda: _applied(*objects), 90, lambda: "a webhook of the cluster does not answer")

    def profile(self, **changes: Any) -> Profile:
        """The lab's profile for this namespace, with changes. Its jobs are PyTorchJobs unless these say otherwise."""
        values = json.loads(load_profile("lab").dumps())
        endpoint = f"http://minio.{self.minio_namespace}:9000"
        values |= {"context": None, "namespace": self.namespace, "patience_s": 30, "grace_s": 30, "job": "pytorchjob"}
        values["store"] |= {"uri": "s3://edm2/test", "env": {"EDM2_S3_ENDPOINT": endpoint}}
        if self.image:
            values["images"] = {"compute": self.image, "control": self.image}
        values = merged(values, changes)
        return Profile.loads(json.dumps(values))

    def tasks(self, epochs: list[int], **overrides: Any) -> list[Task]:
        """Preparing digits, and one training with snapshots at these epochs."""
        file = self.folder / f"{secrets.token_hex(4)}.yaml"
        overrides = {"training.epochs": max(epochs), "network.dropout": 0.1, **overrides}
        experiment = {"name": "x", "recipes": ["digits/C"], "epochs": epochs, "metrics": [], "probe": False, "overrides": overrides}
        file.write_text(json.dumps(experiment))
        return plan(load_experiment(file), {"data:digits/C": "builtin:digits"})

    def fresh(self, epochs: list[int], **changes: Any) -> tuple[Profile, list[Task]]:
        """A store without anything but prepared digits, and a training's tasks."""
        prepare, *trainings = self.tasks(epochs)
        uri = f"s3://edm2/{secrets.token_hex(3)}"
        self.here(prepare, open_store(uri))
        return self.profile(store={"uri": uri}, **changes), trainings

    def here(self, task: Task, store: Store, processes: int = 1) -> Manifest:
        """Do a task on this machine."""
        backend = LocalBackend(lambda spec: self.folder / f"{spec.name}.log", 2)
        return execute(
            task, store, backend, spec_of(task, store.uri, processes=processes), run="here", show=lambda *_: None, stop=threading.Event()
        )[0]

    def pods(self) -> str:
        """The names of all pods in the namespace."""
        return kubectl("-n", self.namespace, "get", "pods", "-o", "name")

    def delete_jobs(self) -> None:
        for kind in KINDS:
            kubectl("-n", self.namespace, "delete", f"{kind.plural}.{kind.group}", "--all", "--wait=false")

    def require(self, profile: Profile) -> None:
        """Have in the namespace what jobs of the profile name."""
        if needed := [each for each in prerequisites(profile) if each["metadata"]["name"] not in self._runtimes]:
            self.apply(*needed)
            self._runtimes |= {each["metadata"]["name"] for each in needed}

    def follow(self, task: Task, profile: Profile | None = None, run: str = "", cluster: Cluster | None = None) -> "Follower":
        profile = profile or self.profile()
        self.require(profile)
        return Follower(task, profile, run or f"run-{secrets.token_hex(3)}", cluster or Cluster.connect(profile))


class JobPods:
    """The pods of one job."""

    def __init__(self, name: str, namespace: str, kind: JobKind) -> None:
        self.name, self.namespace, self.kind = name, namespace, kind

    def pods(self) -> list[dict[str, Any]]:
        """The job's pods."""
        labels = selector(self.kind.pod_labels(self.name))
        return list(json.loads(kubectl("-n", self.namespace, "get", "pods", "-l", labels, "-o", "json"))["items"])

    def pod_names(self, *indices: int) -> list[str]:
        """The names of the pods with these indices that have not ended and were not told to end."""
        there = [
            pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] in ("Pending", "Running")
        ]
        names = {self.kind.pod_index(pod["metadata"]["name"]): str(pod["metadata"]["name"]) for pod in there}
        return [names[str(index)] for index in indices if str(index) in names]

    def kill(self, *indices: int) -> float:
        """Kill pods without grace; returns when (seconds since 1970)."""
        names = self.pod_names(*indices)
        kubectl(
            "-n", self.namespace, "delete", "pod", *(names or ["none"]), "--grace-period=0", "--force", "--wait=false", "--ignore-not-found"
        )
        return time.time()

    def inside(self, index: int, program: str) -> str:
        """Run Python in a pod; `stage()` gives the pids of the stage's processes there."""
        find = "import os,glob,signal\n"
        find += (
            "def stage(): return [int(p.split('/')[2]) for p in glob.glob('/proc/[0-9]*/comm') if open(p).read() == 'stages.train\\n']\n"
        )
        return kubectl("-n", self.namespace, "exec", *self.pod_names(index), "--", "python", "-c", find + program)


class Follower(JobPods):
    """Executes a task on the cluster in a thread, keeping what it shows."""

    def __init__(self, task: Task, profile: Profile, run: str, cluster: Cluster) -> None:
        self.task, self.events, self.stop = task, list[dict[str, Any]](), threading.Event()
        self.store = open_store(profile.store.uri)
        self.record = Run(run, self.store)
        self.backend = ClusterBackend(profile, cluster, self.record)
        self.spec, self.ended = cluster_spec(task, profile.store.uri, profile), 0.0
        super().__init__(self.spec.name, profile.namespace, kind_of(profile))
        self.manifest: Manifest | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def logs(self) -> str:
        """The store's folder with the job's output."""
        return log_folder(self.record.id, self.task)

    def job(self) -> dict[str, Any]:
        return dict(json.loads(kubectl("-n", self.namespace, "get", self.kind.word, self.spec.name, "-o", "json")))

    def printed(self) -> dict[str, list[str]]:
        """What each of the job's pods that are there has printed."""
        names = [pod["metadata"]["name"] for pod in self.pods()]
        return {name: kubectl("-n", self.namespace, "logs", name).splitlines() for name in names}

    def _run(self) -> None:
        def show(_: Task, event: dict[str, Any]) -> None:
            self.events.append({**event, "seen": time.time()})

        try:
            self.manifest, _ = execute(self.task, self.store, self.backend, self.spec, run=self.record.id, show=show, stop=self.stop)
        except BaseException as error:
            self.error = error
        self.ended = time.time()

    def wait_for(self, kind: str, seconds: float = 120, after: float = 0.0, **fields: Any) -> dict[str, Any]:
        """The first event of that kind which was emitted after that time."""

        def found() -> dict[str, Any] | None:
            for event in list(self.events):
                if event["kind"] == kind and event.get("time", event["seen"]) > after and fields.items() <= event.items():
                    return event
            return None

        return until(found, seconds, lambda: f"no event {kind} {fields}; {self.error}; {self.events[-15:]}")

    def wait_for_step(self, step: int, seconds: float = 180, after: float = 0.0) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            fresh = [e for e in list(self.events) if e["kind"] == "progress" and e["step"] >= step and e["time"] > after]
            return fresh[0] if fresh else None

        return until(found, seconds, lambda: f"step {step} was not reached; {self.error}; {self.events[-15:]}")

    def done(self, seconds: float = 400) -> Manifest:
        """The task's manifest; raises what the task raised."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the task goes on and on: {self.events[-15:]}"
        self.backend.close(0)
        if self.error is not None:
            raise self.error
        assert self.manifest is not None
        return self.manifest


def difference(store: Store, manifest: Manifest, other: Store, same: Manifest, folder: Path) -> float:
    """The largest difference between the averaged weights of two snapshots."""
    largest = 0.0
    for name in ("ema-fixed.safetensors", "ema-0.050.safetensors"):
        one = load_file(store.fetch(manifest.path(name), folder / "one", manifest.files[name]))
        two = load_file(other.fetch(same.path(name), folder / "two", same.files[name]))
        assert one.keys() == two.keys()
        largest = max(largest, *(float(np.abs(one[key].astype(np.float64) - two[key]).max()) for key in one))
    return largest


def until(found: Callable[[], Any], seconds: float, words: Callable[[], str]) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (value := found()) is not None:
            return value
        time.sleep(0.1)
    pytest.fail(words())


def _applied(*objects: dict[str, Any]) -> bool | None:
    """Apply objects. None if a webhook does not answer, as while its controller is started again on a busy machine."""
    try:
        kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    except AssertionError as error:
        if "failed calling webhook" not in str(error):
            raise
        return None
    return True


def _made_bucket(client: Minio) -> bool | None:
    try:
        client.make_bucket("edm2")
    except MinioException:  # says that it is ready a moment too early
        return None
    return True


def store_elsewhere(namespace: str, place: dict[str, Any], port: int) -> dict[str, Any]:
    """What an installation adds to the policies of k8s/base whose store is elsewhere. `place` is a peer of a NetworkPolicy."""
    rule = {"to": [place], "ports": [{"port": port}]}
    spec = {"podSelector": {"matchLabels": SELECTOR}, "policyTypes": ["Egress"], "egress": [rule]}
    metadata = {"name": f"store-elsewhere-{port}", "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _minio(namespace: str, data: Path) -> list[dict[str, Any]]:
    labels = {"app": "minio"}
    container = {
        "name": "minio",
        "image": MINIO,
        "args": ["server", "/data"],
        "env": [{"name": "MINIO_ROOT_USER", "value": USER}, {"name": "MINIO_ROOT_PASSWORD", "value": PASSWORD}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": 9000}, "periodSeconds": 1},
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "data", "hostPath": {"path": str(data), "type": "DirectoryOrCreate"}}],
        "terminationGracePeriodSeconds": 1,
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "minio", "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels},
                "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "minio", "namespace": namespace},
            "spec": {"selector": labels, "ports": [{"port": 9000}]},
        },
    ]
