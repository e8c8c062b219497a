"""What the launcher has to know of a kind of job in Kubernetes, such as PyTorchJob."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from components.launcher.profile import Profile
from components.launcher.spec import JobSpec

Object = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a job ended, by its own status; `message` is the cluster's."""

    succeeded: bool
    message: str = ""


class JobKind(ABC):
    """A kind of job. All methods are pure: `job` is a job as the API server has it."""

    name: ClassVar[str]  # `kind` of a manifest
    group: ClassVar[str]  # of the API
    version: ClassVar[str]
    plural: ClassVar[str]  # of the resource, as in paths and Roles
    container: ClassVar[str]  # the one that works, in each pod
    longest_name: ClassVar[int]  # characters of a job's name, so that its pods' names are legal
    operator: ClassVar[str]  # in words: the program that makes the job's pods
    deployment: ClassVar[str]  # the operator's Deployment, and its label app.kubernetes.io/name
    install: ClassVar[str]  # what to do where a cluster lacks it

    @abstractmethod
    def spec(self, job: JobSpec, profile: Profile, pod_template: Object) -> Object:
        """The manifest's `spec`: `job.nodes` pods that find each other."""

    @abstractmethod
    def decisive(self, spec: Object) -> Object:
        """What of a manifest's `spec` decides how the job runs: no labels of pods, no arguments. Its digest tells a changed profile."""

    @abstractmethod
    def suspension(self, suspend: bool) -> Object:
        """The merge patch that suspends a job, or lets it go on."""

    @abstractmethod
    def is_suspended(self, job: Object) -> bool:
        """Whether the job is to have no pods for now."""

    @abstractmethod
    def ending(self, job: Object) -> Ending | None:
        """How the job ended; None if it has not."""

    @abstractmethod
    def pods_wanted(self, job: Object) -> int:
        """How many pods the job has when it runs."""

    @abstractmethod
    def pod_labels(self, name: str) -> dict[str, str]:
        """The labels that select the pods of the job of that name."""

    @abstractmethod
    def pod_index(self, pod: str) -> str:
        """Which of its job's pods the one of that name is; its successor has the same index."""

    def is_active(self, job: Object) -> bool:
        """Whether the job runs, or would if it could."""
        return self.ending(job) is None and not self.is_suspended(job) and "deletionTimestamp" not in job["metadata"]
