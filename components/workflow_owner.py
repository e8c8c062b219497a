"""Who owns a job that a task of Kubeflow's starts: the run's Workflow or nobody, never the task's own pod.

When a pod is lost, all that it owns is deleted; but the pod that comes after it is to adopt the job.
"""

from __future__ import annotations

import os
from typing import Any

from components.launcher.cluster import Cluster
from edm2core.errors import EdmError


def workflow_of(cluster: Cluster) -> tuple[dict[str, Any] | None, str]:
    """An ownerReference to the Workflow that owns this process's pod, or None and the reason."""
    pod = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
    if not pod:
        return None, "this pod's name is unknown"
    try:
        found = cluster.pod(pod)
    except EdmError as error:
        return None, f"this pod cannot be read: {error.what}"
    if found is None or found["metadata"]["uid"] != os.environ.get("KFP_POD_UID", found["metadata"]["uid"]):
        return None, f"this pod is not in namespace {cluster.namespace}"  # Kubernetes takes an owner in another namespace for deleted
    for owner in found["metadata"].get("ownerReferences", []):
        if owner["kind"] == "Workflow" and owner["apiVersion"].startswith("argoproj.io/"):
            return {name: owner[name] for name in ("apiVersion", "kind", "name", "uid")}, ""
    return None, "this pod belongs to no Workflow"
