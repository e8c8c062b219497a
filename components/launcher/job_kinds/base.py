"""What the launcher has to know about a kind of job in Kubernetes, such as PyTorchJob."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from components.launcher.profile import Profile
from components.launcher.spec import JobSpec

Object = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a job ended, by its own status. `message` is in the operator's words."""

    succeeded: bool
    message: str = ""


def with_nodes(command: list[str], nodes: int) -> list[str]:
    """The entry program's command, for a job of so many nodes."""
    place = command.index("--nnodes") + 1
    return [*command[:place], str(nodes), *command[place + 1 :]]


class JobKind(ABC):
    """A kind of job. All methods are pure: `job` is a job as the API server has it."""

    name: ClassVar[str]  # the manifest's `kind`
    group: ClassVar[str]  # of the API
    version: ClassVar[str]
    plural: ClassVar[str]  # of the resource, as in paths and Roles
    container: ClassVar[str]  # name of the container that computes, in each pod
    longest_name: ClassVar[int]  # the most characters of a job's name with which its pods' names are legal
    operator: ClassVar[str]  # the program that makes the job's pods, in words
    deployment: ClassVar[str]  # the name of the operator's Deployment, and the value of its label app.kubernetes.io/name
    policy: ClassVar[str]  # the name of the admission policy that holds edm2-control's jobs of this kind (k8s/components/admission)
    install: ClassVar[str]  # what to do if the cluster lacks the operator
    resizable: ClassVar[bool]  # whether a job that is there can get another number of pods
    replaces_at_once: ClassVar[bool]  # whether a lost pod is made anew at once, also if the job has lost others before

    @abstractmethod
    def spec(self, job: JobSpec, profile: Profile, pod_template: Object) -> Object:
        """The manifest's `spec`, for `job.nodes` pods that find each other."""

    @abstractmethod
    def decisive(self, spec: Object) -> Object:
        """The part of a manifest's `spec` that decides how the job runs. Its digest shows a changed profile.

        It leaves out the pods' labels, which say who wants the job, and the arguments, which say for which snapshot it was started.
        """

    def prerequisite(self, profile: Profile, pod_template: Object) -> Object | None:
        """The object that has to be in the namespace before a job with such pods can start; None if there is none."""
        return None

    def in_words(self, job: Object, refusal: str) -> tuple[str, str] | None:
        """What a refusal to create the job means, and what to do; None if the refusal itself says it best."""
        return None

    @abstractmethod
    def suspension(self, suspend: bool) -> Object:
        """The merge patch that suspends a job or resumes it."""

    @abstractmethod
    def is_suspended(self, job: Object) -> bool:
        """Whether the job is suspended, so that it is to have no pods."""

    @abstractmethod
    def ending(self, job: Object) -> Ending | None:
        """How the job ended; None if it has not."""

    @abstractmethod
    def pods_wanted(self, job: Object) -> int:
        """How many pods the job has when it runs."""

    @abstractmethod
    def resized(self, spec: Object, nodes: int) -> Object:
        """The `spec` of a job that is there, for so many pods, and not suspended."""

    @abstractmethod
    def pod_labels(self, name: str) -> dict[str, str]:
        """The labels that select the pods of the job of that name."""

    @abstractmethod
    def pod_index(self, pod: str) -> str:
        """The index of the pod of that name among its job's pods. A pod's successor has the same index."""

    def concerns(self, job: Object, event: Object) -> bool:
        """Whether an event is about the job itself, or about what its operator has made of it, pods apart."""
        return bool(event["involvedObject"].get("uid") == job["metadata"]["uid"])

    @property
    def word(self) -> str:
        """The kind as a profile's `job` names it, and as kubectl does."""
        return self.name.lower()

    def is_active(self, job: Object) -> bool:
        """Whether the job runs or waits to run: it has not ended, is not suspended and is not being deleted."""
        return self.ending(job) is None and not self.is_suspended(job) and "deletionTimestamp" not in job["metadata"]
