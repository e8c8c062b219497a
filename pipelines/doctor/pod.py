"""Starts a pod like this project's own, which shows whether images can be pulled and whether pods can reach and write the store."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from components.launcher.cluster import Cluster, ClusterError
from components.launcher.diagnose import diagnose_pods
from components.launcher.job import pod_template
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec
from edm2core.events import parse
from edm2core.plan.tasks import Task
from pipelines.doctor.machine import Check

Object = dict[str, Any]
STUCK_S = 30  # how long a pod may fail to run for one cause until that is taken for permanent
RESOURCES = {"cpu": "100m", "memory": "512Mi"}


def check_from_pod(cluster: Cluster, profile: Profile, patience_s: float) -> Iterator[Check]:
    """Run the probe pod under the control pods' account, report what it saw, and delete it."""
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
    """A pod like a job's, but with both images, no GPU, and few resources."""
    task = Task("metrics", 1, {}, {}, "doctor", "doctor")
    template = pod_template(JobSpec(name, "none", task, profile.store.uri), profile)
    spec = template["spec"]
    labels = {**template["metadata"]["labels"], "app.kubernetes.io/component": "control"}
    labels.pop("kueue.x-k8s.io/queue-name", None)
    container = {**spec["containers"][0], "resources": {"requests": RESOURCES, "limits": RESOURCES}}
    command = ["python3", "-m", "pipelines.doctor.machine"]
    store = {**container, "name": "control", "image": profile.images.control, "command": command, "args": [profile.store.uri]}
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
    """Wait for the end of the probe pod, and yield what it saw."""
    begun, cause, since = time.monotonic(), "", 0.0
    while True:
        pod = cluster.pod(name)
        if pod is None:
            yield Check("problem", f"the probe pod {name} was deleted before it ended", "Run doctor again.")
            return
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            yield Check("ok", "both images can be pulled by a pod")
            yield from checks_in(cluster.output(name, "control"))
            return
        diagnosis = diagnose_pods(1, [pod])
        if diagnosis.cause != cause:
            cause, since = diagnosis.cause, time.monotonic()
        if cause and time.monotonic() - since > STUCK_S:
            yield Check("problem", f"the probe pod does not run: {diagnosis.reason}", "docs/how-to/troubleshooting.md says what it means.")
            return
        if time.monotonic() - begun > patience_s:
            describe = f"kubectl -n {cluster.namespace} describe pod {name}"
            yield Check("problem", f"the probe pod has not ended after {patience_s:.0f} s: {diagnosis.reason}", describe)
            return
        time.sleep(1.0)


def checks_in(log: str) -> Iterator[Check]:
    """The checks that the program in `machine.py` has printed in the pod."""
    checks = [event for line in log.splitlines() if (event := parse(line)) and event["kind"] == "check"]
    if not checks:
        yield Check("problem", f"the probe pod said nothing about the store; its last words: {(log.splitlines() or ['none'])[-1]}")
    for check in checks:
        yield Check(check["state"], f"from a pod: {check['what']}", check["do_next"])
