"""PyTorchJob of the Kubeflow training operator, version 1.

A job has workers only, and an elastic policy. So it needs no init container, which "restricted" PodSecurity would refuse.
"""

from components.launcher.job_kinds.base import Ending, JobKind, Object, with_nodes
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec

RENDEZVOUS = {"read_timeout": "10", "join_timeout": "120"}
"""The most seconds to wait. With torchrun's default values, a recreated pod can wait for minutes for a dead pod that led the rendezvous."""


class PyTorchJob(JobKind):
    name, group, version, plural = "PyTorchJob", "kubeflow.org", "v1", "pytorchjobs"
    container = "pytorch"  # the operator demands this name
    longest_name = 63 - len("-worker-99")
    resizable = replaces_at_once = True
    operator, deployment = "the training operator", "training-operator"
    policy = "edm2-jobs"
    install = "Install the Kubeflow training operator 1.9 (docs/how-to/cluster.md), or Kubeflow itself."

    def spec(self, job: JobSpec, profile: Profile, pod_template: Object) -> Object:
        policy: Object = {"cleanPodPolicy": "Running", "ttlSecondsAfterFinished": profile.ttl_s, "suspend": False}
        if profile.active_deadline_s:
            policy["activeDeadlineSeconds"] = profile.active_deadline_s
        return {
            "nprocPerNode": str(job.processes),
            "runPolicy": policy,
            "elasticPolicy": {
                "rdzvBackend": "c10d",
                "minReplicas": job.nodes,
                "maxReplicas": job.nodes,
                "maxRestarts": 0,
                "rdzvConf": [{"key": key, "value": value} for key, value in RENDEZVOUS.items()],
            },
            "pytorchReplicaSpecs": {"Worker": {"replicas": job.nodes, "restartPolicy": "ExitCode", "template": pod_template}},
        }

    def decisive(self, spec: Object) -> Object:
        worker = spec["pytorchReplicaSpecs"]["Worker"]
        pod = worker["template"]["spec"]
        first, *others = pod["containers"]
        pod = {**pod, "containers": [{**first, "args": None}, *others]}
        return {**spec, "pytorchReplicaSpecs": {"replicas": worker["replicas"], "pod": pod}}

    def suspension(self, suspend: bool) -> Object:
        return {"spec": {"runPolicy": {"suspend": suspend}}}

    def is_suspended(self, job: Object) -> bool:
        return bool(job["spec"].get("runPolicy", {}).get("suspend"))

    def ending(self, job: Object) -> Ending | None:
        conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or [] if c.get("status") == "True"}
        final = conditions.get("Succeeded") or conditions.get("Failed")
        return Ending(final["type"] == "Succeeded", str(final.get("message", "the job failed"))) if final else None

    def pods_wanted(self, job: Object) -> int:
        return sum(int(role.get("replicas", 1)) for role in job["spec"]["pytorchReplicaSpecs"].values())

    def resized(self, spec: Object, nodes: int) -> Object:
        worker = spec["pytorchReplicaSpecs"]["Worker"]
        template = worker["template"]
        first, *others = template["spec"]["containers"]
        first = {**first, "command": with_nodes(first["command"], nodes)}
        template = {**template, "spec": {**template["spec"], "containers": [first, *others]}}
        return {
            **spec,
            "runPolicy": {**spec["runPolicy"], "suspend": False},
            "elasticPolicy": {**spec["elasticPolicy"], "minReplicas": nodes, "maxReplicas": nodes},
            "pytorchReplicaSpecs": {"Worker": {**worker, "replicas": nodes, "template": template}},
        }

    def pod_labels(self, name: str) -> dict[str, str]:
        return {"training.kubeflow.org/job-name": name}

    def pod_index(self, pod: str) -> str:
        return pod.rpartition("-")[2]
