"""Makes a job's pods anew: with another number of them, or because one was lost that its operator would make late.

The job is stopped, its state saved, and it goes on with as many pods as somebody asked for.
"""

from typing import Any

from components.launcher.cluster import Cluster
from components.launcher.job_kinds import JobKind

Object = dict[str, Any]
SIZE = "edm2/nodes"  # annotation: how many pods the job is to have
RESIZES = "edm2/resizes"  # annotation: the job is suspended to get another number of pods
KEPT = ("name", "namespace", "labels", "annotations", "ownerReferences")  # what a job that is made again has of the one before


def wanted_size(kind: JobKind, job: Object) -> int:
    """How many pods the job is to have: as many as somebody asked for, or as it was made with."""
    asked = job["metadata"].get("annotations", {}).get(SIZE, "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else kind.pods_wanted(job)


class Resizing:
    """The steps by which a follower brings its job to the pods that are wanted. Other followers may make the same steps."""

    def __init__(self, cluster: Cluster, name: str, queue: bool) -> None:
        self._cluster, self._kind, self._name, self._queue = cluster, cluster.kind, name, queue
        self._again: Object | None = None  # the job that is to be made again once the old one is gone
        self.replaces = False  # whether that is because of lost pods

    def step(self, job: Object | None, pods: list[Object], lost: bool = False) -> str:
        """Make the next step. Returns in words what the job waits for; empty if it has the size that is wanted, and its pods.

        In a queue only Kueue may suspend a job, and a kind's size may be fixed. Such a job is deleted and made again. So is one that has
        `lost` pods for good, where its operator would make them late. In a queue it would lose its place, so there it waits for them.
        """
        if job is None or "deletionTimestamp" in job["metadata"]:
            if self._again is None:
                return ""
            if job is None and not pods:
                self._cluster.create_job(self._again)
                self._again = None
                return "begins with new pods" if self.replaces else "begins with another number of pods"
            return "ends, to begin with new pods" if self.replaces else "saves its state, to go on with another number of pods"
        self._again, self.replaces = None, False
        size, before = wanted_size(self._kind, job), self._kind.pods_wanted(job)
        annotations = job["metadata"].get("annotations", {})
        if size == before or self._kind.ending(job) or (self._kind.is_suspended(job) and not self._queue and RESIZES not in annotations):
            if not lost or self._queue or self._kind.replaces_at_once:
                return ""
            now = self._cluster.job(self._name)  # its pods may be gone because somebody has suspended it since it was read
            self.replaces = now is not None and self._kind.is_active(now) and self._make_again(now, size)
            return "has lost a pod; it is made again, since its operator would make the new pod late" if self.replaces else ""
        words = f"saves its state, to go on with {size} pods instead of {before}"
        fixed = self._queue or not self._kind.resizable
        if fixed and (self._queue or not pods):
            if not self._make_again(job, size):
                return ""  # it has changed since it was read
        elif not self._kind.is_suspended(job):
            self._cluster.patch_job(self._name, {"metadata": {"annotations": {RESIZES: "yes"}}} | self._kind.suspension(True))
        elif not pods:
            change = {"metadata": {"annotations": {RESIZES: None}}, "spec": self._kind.resized(job["spec"], size)}
            self._cluster.patch_job(self._name, change)
        return words

    def _make_again(self, job: Object, size: int) -> bool:
        """Delete the job, to make it again once it and its pods are gone. False if it has changed meanwhile."""
        if not self._cluster.delete_job(self._name, job):
            return False
        self._again = {**job, "spec": self._kind.resized(job["spec"], size), "metadata": _kept(job)}
        self._again.pop("status", None)
        return True


def _kept(job: Object) -> Object:
    metadata = {part: value for part, value in job["metadata"].items() if part in KEPT}
    annotations = {name: value for name, value in metadata.get("annotations", {}).items() if name != RESIZES}
    return {**metadata, "annotations": annotations}
