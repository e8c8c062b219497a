"""Starts a pod like this project's own, to see what only a pod can show: images can be pulled, the store can be reached and written."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from components.launcher.cluster import Cluster, ClusterError
from components.launcher.diagnose import diagnose_pods
from components.launcher.job import pod_template
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec
from edm2core.plan.tasks import Task
from pipelines.doctor.machine import Check

Object = dict[str, Any]
STUCK_S = 30  # how long one trouble may last until it is taken for permanent
RESOURCES = {"cpu": "100m", "memory": "512Mi"}


def check_from_pod(cluster: Cluster, profile: Profile, patience_s: float) -> Iterator[Check]:
    """Run the probe pod under the control pods' account, and report what it saw; it is deleted again."""
    name = f"edm2-doctor-{uuid.uuid4().hex[:8]}"
    try:
        cluster.create_pod(probe_pod(profile, name))
    except ClusterError as error:
        said = f"no pod can be started in namespace {profile.namespace}: {error.said}"
        yield Check("problem", said, "Change what the refusal names.")
        return
    try:
        yield from _watch(cluster, name, patience_s)
    except ClusterError as error:
        yield Check("problem", f"the probe pod {name} cannot be followed: {error.said}")
    finally:
        cluster.remove_pod(name)


def probe_pod(profile: Profile, name: str) -> Object:
    """The pod: a job's, with both images, no GPU, and little of everything else."""
    task = Task("metrics", 1, {}, {}, "doctor", "doctor")
    template = pod_template(JobSpec(name, "none", task, profile.store.uri), profile)
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


def _watch(cluster: Cluster, name: str, patience_s: float) -> Iterator[Check]:
    """Wait for the probe pod's end, and tell what it saw."""
    begun, trouble, since = time.monotonic(), "", 0.0
    while True:
        pod = cluster.pod(name)
        if pod is None:
            yield Check("problem", f"the probe pod {name} was deleted before it ended", "Run doctor again.")
            return
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            yield Check("ok", "both images can be pulled by a pod")
            yield from _told(cluster.output(name, "control"))
            return
        found = diagnose_pods(1, [pod])
        reason = found.reason if found.cause else ""
        if reason.partition(":")[0] != trouble.partition(":")[0]:
            since = time.monotonic()
        trouble = reason
        if trouble and time.monotonic() - since > STUCK_S:
            yield Check("problem", f"the probe pod does not run: {trouble}", "docs/operations.md says what each of these means.")
            return
        if time.monotonic() - begun > patience_s:
            describe = f"kubectl -n {cluster.namespace} describe pod {name}"
            yield Check("problem", f"the probe pod has not ended after {patience_s:.0f} s: {found.reason}", describe)
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
