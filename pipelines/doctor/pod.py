"""A pod as this project's own are, that shows what only a pod can: images that can be pulled, a store that can be reached and written."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import urllib3
from kubernetes.client.exceptions import ApiException

from components.launcher.diagnose import diagnose
from components.launcher.job import to_manifest
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec
from edm2core.plan.tasks import Task
from pipelines.doctor.cluster import Check, ClusterApi, Object, words

STUCK_S = 30  # in one trouble, until it is taken for lasting
RESOURCES = {"cpu": "100m", "memory": "512Mi"}
ONLY = {"metadata": {"uid": ""}, "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 1}}}}  # a pod is diagnosed as a job's only one


def check_from_pod(api: ClusterApi, profile: Profile, patience_s: float) -> Iterator[Check]:
    """Run the probe pod under the control pods' account, and report what it saw; it is deleted again."""
    path = f"/api/v1/namespaces/{profile.namespace}/pods"
    pod = probe_pod(profile, f"edm2-doctor-{uuid.uuid4().hex[:8]}")
    try:
        api("POST", path, pod)
    except ApiException as error:
        yield Check("problem", f"no pod can be started in namespace {profile.namespace}: {words(error)}", "It says what it wants changed.")
        return
    name = pod["metadata"]["name"]
    try:
        yield from _watch(api, f"{path}/{name}", patience_s)
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        said = words(error) if isinstance(error, ApiException) else type(error).__name__
        yield Check("problem", f"the probe pod {name} cannot be followed: {said}")
    finally:
        api.text("DELETE", f"{path}/{name}?gracePeriodSeconds=0")


def probe_pod(profile: Profile, name: str) -> Object:
    """The pod: a job's, with both images, no GPU, and little of everything else."""
    task = Task("metrics", 1, {}, {}, "doctor", "doctor")
    template = to_manifest(JobSpec(name, "none", task, profile.store.uri), profile)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    spec = template["spec"]
    labels = {**template["metadata"]["labels"], "app.kubernetes.io/component": "control"}
    labels.pop("kueue.x-k8s.io/queue-name", None)
    container = {**spec["containers"][0], "resources": {"requests": RESOURCES, "limits": RESOURCES}}
    store = {
        **container,
        "name": "control",
        "image": profile.images.control,
        "command": ["edm2"],
        "args": ["doctor", "--store", profile.store.uri],
    }
    compute = {**container, "name": "compute", "command": ["true"], "args": []}
    changed = {
        "serviceAccountName": profile.service_accounts.control,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [store, compute],
    }
    metadata = {"name": name, "namespace": profile.namespace, "labels": labels, "annotations": template["metadata"].get("annotations", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **changed}}


def _watch(api: ClusterApi, path: str, patience_s: float) -> Iterator[Check]:
    begun, trouble, since = time.monotonic(), "", 0.0
    while True:
        pod = api("GET", path)
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            yield Check("ok", "both images can be pulled by a pod")
            yield from _told(api.text("GET", f"{path}/log?container=control"))
            return
        found = diagnose(ONLY, [pod])
        reason = found.reason if found.kind else ""
        if reason.partition(":")[0] != trouble.partition(":")[0]:
            since = time.monotonic()
        trouble = reason
        if trouble and time.monotonic() - since > STUCK_S:
            yield Check("problem", f"the probe pod does not run: {trouble}", "docs/operations.md says what each of these means.")
            return
        if time.monotonic() - begun > patience_s:
            yield Check("problem", f"the probe pod has not ended after {patience_s:.0f} s: {found.reason}", f"kubectl describe {path[1:]}")
            return
        time.sleep(1.0)


def _told(log: str) -> Iterator[Check]:
    """What `edm2 doctor --store` printed in the pod about the store."""
    lines = [line for line in log.splitlines() if "store" in line]
    if not lines:
        yield Check("problem", f"the probe pod said nothing about the store; its last words: {(log.splitlines() or ['none'])[-1]}")
    for line in lines:
        state, _, what = line.strip().partition(" ")
        if state in ("ok", "problem"):
            what, _, do_next = what.strip().partition(" → ")
            yield Check("ok" if state == "ok" else "problem", f"from a pod: {what}", do_next)
