"""The manifest of a job for Kubernetes. Its pods are such that "restricted" PodSecurity admits them."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from components.launcher.job_kinds import KINDS, kind_of
from components.launcher.profile import Profile, Resources
from components.launcher.spec import JobSpec, spec_of
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task

SELECTOR = {"app.kubernetes.io/name": "edm2", "app.kubernetes.io/component": "job"}
FOLLOWED_S = 30  # how much longer than rejoin_s a pod waits for a lost one's successor: who follows the job frees all pods first
DIGEST = "edm2/spec"  # annotation: a digest of all that decides how a job runs. It differs once the profile has changed


def to_manifest(spec: JobSpec, profile: Profile, *, run: str = "", owner: dict[str, Any] | None = None) -> dict[str, Any]:
    """The manifest of a job for a run. `owner` is an ownerReference: when that object is deleted, the job is too."""
    kind = kind_of(profile)
    labels = _labels(spec, profile, run)
    metadata: dict[str, Any] = {"name": spec.name[: kind.longest_name], "namespace": profile.namespace, "labels": labels}
    if owner:
        metadata["ownerReferences"] = [owner]
    filled = kind.spec(spec, profile, pod_template(spec, profile, run))
    metadata["annotations"] = {DIGEST: hashlib.sha256(json.dumps(kind.decisive(filled), sort_keys=True).encode()).hexdigest()[:16]}
    return {"apiVersion": f"{kind.group}/{kind.version}", "kind": kind.name, "metadata": metadata, "spec": filled}


def cluster_spec(task: Task, store: str, profile: Profile) -> JobSpec:
    """The job of a task on a cluster, with the nodes and processes that the profile gives its stage."""
    resources = profile.resources_of(task.stage)
    return spec_of(task, store, nodes=resources.nodes.max, processes=resources.processes_per_node)


def run_label(run: str) -> str:
    """The name of the label of jobs that a run wants. Several runs may want one job."""
    return f"run.edm2/{_plain(run)}"


def selector(labels: Mapping[str, str]) -> str:
    """The query for objects that have all of these labels."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def merged(below: Any, above: Any) -> Any:
    """`above` laid over `below`. Mappings merge, null deletes, lists of named things merge by name, anything else replaces."""
    if isinstance(below, dict) and isinstance(above, dict):
        undeleted = {key: value for key, value in below.items() if above.get(key, value) is not None}
        return undeleted | {key: merged(below.get(key), value) for key, value in above.items() if value is not None}
    if _named(below) and _named(above):
        changes = {thing["name"]: thing for thing in above}
        known = [merged(thing, changes.pop(thing["name"], {})) for thing in below]
        return known + list(changes.values())
    return above


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(thing, dict) and "name" in thing for thing in value)


def prerequisites(profile: Profile) -> list[dict[str, Any]]:
    """What an administrator applies to the namespace before jobs of a profile can start, such as a TrainJob's runtimes."""
    kind, objects = kind_of(profile), {}
    for stage in STAGES:
        spec = JobSpec("any", "any", Task(stage, 1, {}, {}, "any", stage), profile.store.uri)
        if needed := kind.prerequisite(profile, pod_template(spec, profile)):
            objects[needed["metadata"]["name"]] = needed
    return list(objects.values())


def pod_template(spec: JobSpec, profile: Profile, run: str = "") -> dict[str, Any]:
    """The template of a job's pods."""
    resources, priorities = profile.resources_of(spec.task.stage), profile.priority_classes
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
        "priorityClassName": priorities.training if spec.task.stage == "snapshot" else priorities.evaluation,
        "tolerations": list(profile.tolerations),
        "nodeSelector": profile.node_selector,
    }
    pod |= {name: value for name, value in optional.items() if value}
    labels = _labels(spec, profile, run) | {"sidecar.istio.io/inject": "false"}
    return {"metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "false"}}, "spec": merged(pod, _patch(profile))}


def _patch(profile: Profile) -> dict[str, Any]:
    """The profile's patch. Each kind of job has its own name for the container that computes; a patch may use that of any kind."""
    names, patch = {kind.container for kind in KINDS}, profile.patch
    if not _named(patch.get("containers")):
        return patch
    own = kind_of(profile).container
    return {**patch, "containers": [{**each, "name": own if each["name"] in names else each["name"]} for each in patch["containers"]]}


def _container(spec: JobSpec, profile: Profile, resources: Resources) -> dict[str, Any]:
    amounts = {"memory": resources.memory} | ({"nvidia.com/gpu": str(resources.gpus)} if resources.gpus else {})
    entry = ["python", "-m", "components.launcher.entry", "--pod", "--nnodes", str(spec.nodes), "--nproc-per-node", str(spec.processes)]
    return {
        "name": kind_of(profile).container,
        "image": profile.images.compute,
        "imagePullPolicy": profile.images.pull_policy,
        "command": [*entry, "--hang-s", str(profile.hang_s), "--rejoin-s", str(profile.rejoin_s + FOLLOWED_S)],
        "args": spec.arguments,
        "env": _environment(spec, profile, resources),
        "resources": {
            "requests": {"cpu": resources.cpu, **amounts},
            "limits": {"cpu": resources.cpu_limit or resources.cpu, **amounts},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }


def _environment(spec: JobSpec, profile: Profile, resources: Resources) -> list[dict[str, Any]]:
    plain = {
        "HOME": "/tmp",  # noqa: S108
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, int(cores(resources.cpu_limit or resources.cpu) // spec.processes))),
        "EDM2_OWNER": f"{profile.namespace}/{spec.name}",  # so a recreated pod takes over its job's lease at once
        "EDM2_GRACE_S": str(profile.grace_s),  # a training warns if saving its state takes longer
        **profile.store.env,
    }
    secret, keys = profile.store.secret, profile.store.secret_env if profile.store.secret else {}
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for name, key in keys.items()),
    ]


def cores(quantity: str) -> float:
    """CPU cores as a number, from a quantity such as 500m."""
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


def _labels(spec: JobSpec, profile: Profile, run: str) -> dict[str, str]:
    subject = spec.task.subject
    values = {
        "edm2/experiment": run.rpartition("-")[0],
        "edm2/stage": "training" if spec.task.stage == "snapshot" else spec.task.stage,
        "edm2/recipe": subject.recipe or subject.dataset,
        "edm2/seed": subject.seed if subject.recipe else None,
        "kueue.x-k8s.io/queue-name": profile.queue,
    }
    labels = {name: _plain(str(value)) for name, value in values.items() if value not in (None, "")}
    return SELECTOR | labels | ({run_label(run): "yes"} if run else {})


def _plain(text: str) -> str:
    """The text as a label may hold it in its name or value: the last 63 characters, with dashes for those that are forbidden."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-63:].strip("._-")
