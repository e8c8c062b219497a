"""Gives a running job another number of pods: it is stopped, its state saved, and goes on with as many as somebody asked for."""

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
    """The steps by which a follower brings its job to the size that is wanted. Other followers may make the same steps."""

    def __init__(self, cluster: Cluster, name: str, queue: bool) -> None:
        self._cluster, self._kind, self._name, self._queue = cluster, cluster.kind, name, queue
        self._again: Object | None = None  # the job that is to be made again once the old one is gone

    def step(self, job: Object | None, pods: list[Object]) -> str:
        """Make the next step. Returns in words what the job waits for; empty if it has the size that is wanted.

        In a queue only Kueue may suspend a job, and a kind's size may be fixed. Such a job is deleted and made again.
        """
        if job is None or "deletionTimestamp" in job["metadata"]:
            if self._again is None:
                return ""
            if job is None and not pods:
                self._cluster.create_job(self._again)
                self._again = None
                return "begins with another number of pods"
            return "saves its state, to go on with another number of pods"
        size, before = wanted_size(self._kind, job), self._kind.pods_wanted(job)
        annotations = job["metadata"].get("annotations", {})
        if size == before or self._kind.ending(job) or (self._kind.is_suspended(job) and not self._queue and RESIZES not in annotations):
            self._again = None
            return ""
        words = f"saves its state, to go on with {size} pods instead of {before}"
        fixed = self._queue or not self._kind.resizable
        if fixed and (self._queue or not pods):
            self._again = {**job, "spec": self._resized(job, size), "metadata": _kept(job)}
            self._again.pop("status", None)
            self._cluster.delete_job(self._name)
        elif not self._kind.is_suspended(job):
            self._cluster.patch_job(self._name, {"metadata": {"annotations": {RESIZES: "yes"}}} | self._kind.suspension(True))
        elif not pods:
            change = {"metadata": {"annotations": {RESIZES: None}}, "spec": self._resized(job, size)}
            self._cluster.patch_job(self._name, change)
        return words

    def _resized(self, job: Object, size: int) -> Object:
        """The job's `spec` for so many pods, not suspended."""
        return self._kind.resized(job["spec"], size)


def _kept(job: Object) -> Object:
    metadata = {part: value for part, value in job["metadata"].items() if part in KEPT}
    annotations = {name: value for name, value in metadata.get("annotations", {}).items() if name != RESIZES}
    return {**metadata, "annotations": annotations}
