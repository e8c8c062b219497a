"""A job as Kubernetes reads it: a PyTorchJob made of workers only, which is admitted where "restricted" PodSecurity is enforced."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from components.launcher.profile import Profile, Resources
from components.launcher.spec import JobSpec

API, KIND, PLURAL = "kubeflow.org/v1", "PyTorchJob", "pytorchjobs"
CONTAINER = "pytorch"  # the operator wants this name
SELECTOR = {"app.kubernetes.io/name": "edm2", "app.kubernetes.io/component": "job"}
DIGEST = "edm2/spec"  # annotation: of what this job was made from, so that a changed profile is noticed
RENDEZVOUS = {
    "read_timeout": "10",
    "join_timeout": "120",
}  # with torchrun's own a recreated pod can wait for a dead one's store for minutes
MOST_NAME = 63 - len("-worker-99")


def to_manifest(spec: JobSpec, profile: Profile, *, run: str = "", owner: dict[str, Any] | None = None) -> dict[str, Any]:
    """The PyTorchJob for a job; `run` is who wants it, `owner` an ownerReference to what it is to be deleted with."""
    metadata: dict[str, Any] = {"name": spec.name[:MOST_NAME], "namespace": profile.namespace, "labels": _labels(spec, profile, run)}
    if owner:
        metadata["ownerReferences"] = [owner]
    policy: dict[str, Any] = {"cleanPodPolicy": "Running", "ttlSecondsAfterFinished": profile.ttl_s, "suspend": False}
    if profile.active_deadline_s:
        policy["activeDeadlineSeconds"] = profile.active_deadline_s
    job: dict[str, Any] = {
        "apiVersion": API,
        "kind": KIND,
        "metadata": metadata,
        "spec": {
            "nprocPerNode": str(spec.processes),
            "runPolicy": policy,
            "elasticPolicy": {
                "rdzvBackend": "c10d",
                "minReplicas": spec.nodes,
                "maxReplicas": spec.nodes,
                "maxRestarts": 0,
                "rdzvConf": [{"key": key, "value": value} for key, value in RENDEZVOUS.items()],
            },
            "pytorchReplicaSpecs": {
                "Worker": {"replicas": spec.nodes, "restartPolicy": "ExitCode", "template": _template(spec, profile, run)}
            },
        },
    }
    metadata["annotations"] = {DIGEST: _digest(job["spec"])}
    return job


def run_label(run: str) -> str:
    """The label of jobs that a run wants; one job may be wanted by several runs."""
    return f"run.edm2/{_plain(run)}"


def merged(below: Any, above: Any) -> Any:
    """`above` laid over `below`: mappings merge, null deletes, lists of named things merge by name, other lists and values replace."""
    if isinstance(below, dict) and isinstance(above, dict):
        kept = {key: value for key, value in below.items() if above.get(key, value) is not None}
        return kept | {key: merged(below.get(key), value) for key, value in above.items() if value is not None}
    if _named(below) and _named(above):
        changes = {thing["name"]: thing for thing in above}
        known = [merged(thing, changes.pop(thing["name"], {})) for thing in below]
        return known + list(changes.values())
    return above


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(thing, dict) and "name" in thing for thing in value)


def _template(spec: JobSpec, profile: Profile, run: str) -> dict[str, Any]:
    resources = profile.resources_of(spec.task.stage)
    pod: dict[str, Any] = {
        "serviceAccountName": profile.service_accounts.job,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": profile.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": profile.run_as_user,
            "runAsGroup": profile.run_as_user,
            "fsGroup": profile.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, profile, resources)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": resources.work}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shm}},
        ],
    }
    optional = {
        "imagePullSecrets": [{"name": name} for name in profile.images.pull_secrets],
        "priorityClassName": profile.priority_of(spec.task.stage),
        "tolerations": list(profile.tolerations),
        "nodeSelector": profile.node_selector,
    }
    pod |= {name: value for name, value in optional.items() if value}
    labels = _labels(spec, profile, run) | {"sidecar.istio.io/inject": "false"}
    return {"metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "false"}}, "spec": merged(pod, profile.patch)}


def _container(spec: JobSpec, profile: Profile, resources: Resources) -> dict[str, Any]:
    amounts = {"memory": resources.memory} | ({"nvidia.com/gpu": str(resources.gpus)} if resources.gpus else {})
    entry = ["python", "-m", "components.launcher.entry", "--pod", "--nnodes", str(spec.nodes), "--nproc-per-node", str(spec.processes)]
    return {
        "name": CONTAINER,
        "image": profile.images.compute,
        "imagePullPolicy": profile.images.pull_policy,
        "command": [*entry, "--hang-s", str(profile.hang_s)],
        "args": spec.arguments,
        "env": _environment(spec, profile, resources),
        "resources": {
            "requests": {"cpu": resources.cpu, **amounts},
            "limits": {"cpu": resources.cpu_limit or resources.cpu, **amounts},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }


def _environment(spec: JobSpec, profile: Profile, resources: Resources) -> list[dict[str, Any]]:
    plain = {
        "HOME": "/tmp",  # noqa: S108
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, int(cores(resources.cpu_limit or resources.cpu) // spec.processes))),
        "EDM2_OWNER": f"{profile.namespace}/{spec.name}",  # a recreated pod takes over its job's lease at once
        "EDM2_GRACE_S": str(profile.grace_s),  # a training says if its states take longer
        **profile.store.env,
        **spec.env,
    }
    secret = profile.store.secret
    keys = profile.store.secret_env if secret else {}
    return [{"name": name, "value": value} for name, value in plain.items()] + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for name, key in keys.items()
    ]


def cores(quantity: str) -> float:
    """CPU cores, of a quantity such as 500m."""
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


def _labels(spec: JobSpec, profile: Profile, run: str) -> dict[str, str]:
    subject = spec.task.subject
    values = {
        "edm2/experiment": run.rpartition("-")[0],
        "edm2/stage": "training" if spec.task.stage == "snapshot" else spec.task.stage,
        "edm2/recipe": subject.get("recipe") or subject.get("dataset"),
        "edm2/seed": subject.get("seed"),
        "kueue.x-k8s.io/queue-name": profile.queue,
    }
    labels = {name: _plain(str(value)) for name, value in values.items() if value not in (None, "")}
    return SELECTOR | labels | ({run_label(run): "yes"} if run else {})


def _plain(text: str) -> str:
    """As the value of a label, or the name in one, may be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-63:].strip("._-")


def _digest(spec: dict[str, Any]) -> str:
    """Of what decides how the job runs: neither who wants it, nor which of a trajectory's snapshots it was started for."""
    template = spec["pytorchReplicaSpecs"]["Worker"]["template"]
    container = {**template["spec"]["containers"][0], "args": None}
    pod = {**template["spec"], "containers": [container, *template["spec"]["containers"][1:]]}
    values = {**spec, "pytorchReplicaSpecs": {"replicas": spec["pytorchReplicaSpecs"]["Worker"]["replicas"], "pod": pod}}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
