"""TrainJob of Kubeflow Trainer, version 2.

A TrainJob names a TrainingRuntime of its namespace. The runtime holds what all jobs of a profile have in common, and an administrator
applies it (k8s/base, `edm2 render --runtimes`). So whoever starts jobs needs no right on runtimes. A runtime's name has a digest of its
contents: a job whose profile the namespace's runtimes do not fit is refused, and does not run with other settings.
"""

import hashlib
import json
import re

from components.launcher.job_kinds.base import Ending, JobKind, Object, with_nodes
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec

NODE = "node"  # the name that the controller wants of the JobSet's replicated job, and of the container in its pods
MANAGER = "edm2/launcher"  # who owns our patches of the runtime; Kueue has patches of its own
RUNTIME = "edm2-"  # how the names of this project's TrainingRuntimes begin
FROM_TRAINER = ("image", "command", "args", "env", "resources")  # parts of the container that the TrainJob's `trainer` sets
MISSING = re.compile(r"runtime '.*' not found|[Rr]untime must be created before")  # in the words of Kueue's and of Trainer's webhook
PATCHED = ("affinity", "imagePullSecrets", "nodeSelector", "schedulingGates", "tolerations", "volumes")
"""Parts of a pod that a TrainJob may set by itself, in runtimePatches. All other parts stand in the runtime."""


class TrainJob(JobKind):
    name, group, version, plural = "TrainJob", "trainer.kubeflow.org", "v1alpha1", "trainjobs"
    container = NODE
    longest_name = 63 - len("-node-0-99-abcde")
    resizable = False  # the controller refuses another numNodes (Trainer 2.2)
    replaces_at_once = False  # the controller of a Job waits 10 s after the first loss, and twice as long after each further one
    operator, deployment = "Kubeflow Trainer", "trainer"
    policy = "edm2-trainjobs"
    install = "Install Kubeflow Trainer 2.2 (docs/how-to/cluster.md), or Kubeflow itself."

    def spec(self, job: JobSpec, profile: Profile, pod_template: Object) -> Object:
        pod, first = pod_template["spec"], pod_template["spec"]["containers"][0]
        patch = {
            "metadata": pod_template["metadata"],
            "spec": {
                **{part: pod[part] for part in PATCHED if part in pod},
                "containers": [{"name": NODE, "volumeMounts": first["volumeMounts"]}],
            },
        }
        spec: Object = {
            "runtimeRef": {"apiGroup": self.group, "kind": "TrainingRuntime", "name": _runtime_name(_runtime(pod))},
            "suspend": False,
            "trainer": {
                **{part: first[part] for part in ("image", "command", "args", "env")},
                "numNodes": job.nodes,
                "numProcPerNode": job.processes,
                "resourcesPerNode": first["resources"],
            },
            "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _of_pods(patch)}],
        }
        if profile.active_deadline_s:
            spec["activeDeadlineSeconds"] = profile.active_deadline_s
        return spec

    def decisive(self, spec: Object) -> Object:
        pods = _pods_of(spec["runtimePatches"][0]["trainingRuntimeSpec"])
        return {**spec, "trainer": {**spec["trainer"], "args": None}, "runtimePatches": pods["spec"]}

    def prerequisite(self, profile: Profile, pod_template: Object) -> Object | None:
        spec = _runtime(pod_template["spec"])
        labels = {"app.kubernetes.io/name": "edm2", "trainer.kubeflow.org/framework": "torch"}
        metadata = {"name": _runtime_name(spec), "namespace": profile.namespace, "labels": labels}
        return {"apiVersion": f"{self.group}/{self.version}", "kind": "TrainingRuntime", "metadata": metadata, "spec": spec}

    def in_words(self, job: Object, refusal: str) -> tuple[str, str] | None:
        if not MISSING.search(refusal):
            return None
        name, namespace = job["spec"]["runtimeRef"]["name"], job["metadata"]["namespace"]
        what = f"The namespace {namespace} has no TrainingRuntime {name}, which TrainJobs of this profile name."
        return what, "Let who administers it apply it: edm2 render --runtimes --job trainjob --cluster PROFILE | kubectl apply -f -"

    def suspension(self, suspend: bool) -> Object:
        return {"spec": {"suspend": suspend}}

    def is_suspended(self, job: Object) -> bool:
        return bool(job["spec"].get("suspend"))  # the condition Suspended may lag behind by seconds

    def ending(self, job: Object) -> Ending | None:
        conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or [] if c.get("status") == "True"}
        final = conditions.get("Complete") or conditions.get("Failed")
        if final is None:
            return None
        return Ending(final["type"] == "Complete", str(final.get("message") or final.get("reason") or "the job failed"))

    def pods_wanted(self, job: Object) -> int:
        return int(job["spec"]["trainer"].get("numNodes", 1))

    def resized(self, spec: Object, nodes: int) -> Object:
        trainer = spec["trainer"]
        patches = [patch for patch in spec["runtimePatches"] if patch["manager"] == MANAGER]
        trainer = {**trainer, "numNodes": nodes, "command": with_nodes(trainer["command"], nodes)}
        return {**spec, "suspend": False, "trainer": trainer, "runtimePatches": patches}

    def pod_labels(self, name: str) -> dict[str, str]:
        return {"jobset.sigs.k8s.io/jobset-name": name}

    def pod_index(self, pod: str) -> str:
        return pod.rsplit("-", 2)[1]

    def concerns(self, job: Object, event: Object) -> bool:
        """Events about pods that cannot be created are those of the Job that the JobSet makes; nobody here may read its uid."""
        name, about = job["metadata"]["name"], event["involvedObject"]
        ours = {("TrainJob", name), ("JobSet", name), ("Job", f"{name}-{NODE}-0")}
        when = str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
        return (about.get("kind"), about.get("name")) in ours and (not when or when >= job["metadata"].get("creationTimestamp", ""))


def _runtime(pod: Object) -> Object:
    """The `spec` of the TrainingRuntime for such pods: all that a TrainJob cannot set by itself."""
    first, *others = pod["containers"]
    rest = {part: value for part, value in first.items() if part not in (*FROM_TRAINER, "volumeMounts")}
    template = {"spec": {**{part: value for part, value in pod.items() if part not in PATCHED}, "containers": [rest, *others]}}
    template["spec"]["restartPolicy"] = "Never"  # podFailurePolicy demands it: the Job makes new pods
    job = {
        "backoffLimit": 1_000_000,  # the follower counts restarts, and knows which of them have brought the training further
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                # The entry program ends with less than 128 only for an error that no restart cures.
                {"action": "FailJob", "onExitCodes": {"containerName": NODE, "operator": "In", "values": list(range(1, 128))}},
                {"action": "Ignore", "onExitCodes": {"containerName": NODE, "operator": "NotIn", "values": [0]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            ]
        },
        # No process ends before all is written, so the first pod that ends well ends the job, as with PyTorchJob.
        "successPolicy": {"rules": [{"succeededCount": 1}]},
        "template": template,
    }
    ancestor = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    jobs = [{"name": NODE, "template": {"metadata": ancestor, "spec": job}}]
    return {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {"spec": {"failurePolicy": {"maxRestarts": 0}, "replicatedJobs": jobs}},
    }


def _runtime_name(spec: Object) -> str:
    return RUNTIME + hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]


def _of_pods(template: Object) -> Object:
    """A patch of the runtime that changes its pods' template."""
    return {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": template}}}]}}}


def _pods_of(patch: Object) -> Object:
    """The pods' template in a patch of the runtime."""
    template: Object = patch["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    return template
