"""Says in words where a job stands and why it does not run, from the API's objects. All functions are pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from components.launcher.job_kinds import JobKind
from edm2core.worker.exit_codes import FAILED, INTERRUPTED

Object = dict[str, Any]
Cause = Literal["", "suspended", "room", "turn", "place", "refused", "broken"]
"""Why a job does not run. suspended: by a person or a queue. room: there is no room. turn: there is no room while other jobs of this
project work. place: no node suits a pod. refused: a node turned a pod away, which is then made again. broken: a fault that waiting rarely
mends. Empty: no cause is known, or the job runs."""

PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
CONFIGURATION = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
SETTING_UP = ("FailedMount", "FailedCreatePodSandBox", "FailedAttachVolume")
DISRUPTIONS = {  # reason of a pod's condition DisruptionTarget → what was done to the pod
    "DeletionByTaintManager": "was taken from its node, which does not answer or is not to be used",
    "DeletionByPodGC": "was lost with its node",
    "EvictionByEvictionAPI": "was evicted, as when a node is drained",
    "PreemptionByScheduler": "made way for a pod of higher priority",
    "TerminationByKubelet": "was evicted by its node",
}


@dataclass(frozen=True)
class Diagnosis:
    """Where a job stands. `cause` and `reason` say why it does not run, `reason` and `code` how it ended."""

    state: Literal["absent", "queued", "running", "done", "failed"]
    reason: str = ""
    cause: Cause = ""
    code: int | None = None
    missing: int = 0  # how many pods do not run


def diagnose(kind: JobKind, job: Object | None, pods: list[Object], events: Iterable[Object] = ()) -> Diagnosis:
    """Where a job stands, by the job itself, its pods, and events about them."""
    if job is None:
        return Diagnosis("absent", "the job is gone")
    if ending := kind.ending(job):
        if ending.succeeded:
            return Diagnosis("done", code=0)
        for death in deaths(pods):
            if 0 < death.code < 128:
                return Diagnosis("failed", death.words, code=death.code)
        return Diagnosis("failed", ending.message, code=FAILED)  # such as a deadline: no pod failed by itself
    if kind.is_suspended(job):
        queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        return Diagnosis("queued", f"waits in the queue {queue}" if queue else "suspended", "suspended")
    return diagnose_pods(kind.pods_wanted(job), pods, events, lambda event: kind.concerns(job, event))


def wait_in_queue(queue: str, workloads: list[Object]) -> str:
    """What a job in a queue waits for, by Kueue's Workload for it."""
    where = f"waits in the queue {queue}"
    if not workloads:
        return where
    conditions = _conditions(workloads[0])
    reserved, evicted = conditions.get("QuotaReserved", {}), conditions.get("Evicted", {})
    if workloads[0]["spec"].get("active") is False:
        return f"{where}, which does not admit it: the Workload {workloads[0]['metadata']['name']} is deactivated"
    if reserved.get("status") == "True":
        return f"{where}: it has its quota and is about to begin"
    before = f"; it was evicted: {_said(evicted)}" if evicted.get("status") == "True" else ""
    return f"{where}{_after_colon(_said(reserved))}{before}"


def diagnose_pods(
    wanted: int, pods: list[Object], events: Iterable[Object] = (), about_job: Callable[[Object], bool] = lambda _: False
) -> Diagnosis:
    """Where a set of `wanted` pods stands; `about_job` says whether an event is about the job that they belong to, if any."""
    events = list(events)
    current = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    running = [pod for pod in current if pod["status"].get("phase") == "Running" and not out_of_reach(pod)]
    missing = wanted - len(running)
    if missing <= 0:
        return Diagnosis("running")
    for pod in pods:
        if out_of_reach(pod):
            return Diagnosis("queued", f"{pod['metadata']['name']}: its node {_node(pod)} does not answer", missing=missing)
    troubles = [_trouble(pod, events) for pod in current]
    if len(current) < wanted:
        troubles.append(_refused(filter(about_job, events)))
    for cause, reason in filter(None, troubles):
        return Diagnosis("queued", reason, cause, missing=missing)
    ending = "".join(f"; {pod['metadata']['name']} is ending on {_node(pod)}" for pod in pods if pod not in current)
    return Diagnosis("queued", f"{len(running)} of {wanted} pods run{ending}", missing=missing)


def out_of_reach(pod: Object) -> bool:
    """Whether the pod's node does not answer. The cluster then calls the pod not ready, and leaves its containers' states as they were."""
    states = {kind: condition["status"] for kind, condition in _conditions(pod).items()}
    return pod["status"].get("phase") == "Running" and states.get("ContainersReady") == "True" and states.get("Ready") == "False"


def turned_away(pod: Object) -> bool:
    """Whether the pod's node refused it before any of its containers began (full, under pressure, a device that is gone)."""
    return pod["status"].get("phase") == "Failed" and not has_begun(pod)


def has_begun(pod: Object) -> bool:
    """Whether any of the pod's containers runs or has run."""
    states = [status.get("state", {}) for status in _container_statuses(pod)]
    return pod["status"].get("phase") in ("Running", "Succeeded") or any("terminated" in state or "running" in state for state in states)


@dataclass(frozen=True)
class Death:
    """How a pod's container ended, or how it will, once the cluster has told the pod to leave."""

    uid: str  # of the pod
    code: int
    words: str
    time: str
    first_cause: bool  # it ended by itself or was ended by the cluster; if not, it was told to stop, or another pod of its job was lost
    own_fault: bool  # it ended by itself, or for using more than its node has; not drained or preempted, and its node not lost


def deaths(pods: Iterable[Object]) -> list[Death]:
    """How containers ended, the earliest first. A pod that the cluster takes away counts as soon as that is known."""
    found = []
    for pod in pods:
        name, uid = str(pod["metadata"]["name"]), str(pod["metadata"]["uid"])
        words, fault = _disruption(pod), pod["status"].get("reason") == "Evicted"
        ends = [
            (status["name"], end)
            for status in _container_statuses(pod)
            if (end := status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated"))
        ]
        for container, end in ends or ([("", {"exitCode": INTERRUPTED})] if words else []):
            code = int(end.get("exitCode", 0))
            how = words or _death(name, pod, container, code, str(end.get("reason", "")))
            by_itself = code != INTERRUPTED and not words
            found.append(Death(uid, code, how, str(end.get("finishedAt", "")), bool(words) or by_itself, fault or by_itself))
    return sorted(found, key=lambda death: death.time)


def evictions(events: Iterable[Object]) -> list[Death]:
    """The ends of evicted pods, from events. Such a pod may be replaced before anybody has seen how it ended."""
    about = [(event["involvedObject"], event) for event in events if event.get("reason") == "Evicted"]
    return [Death(pod["uid"], 137, _evicted(pod["name"], event), "", first_cause=True, own_fault=True) for pod, event in about]


def _disruption(pod: Object) -> str:
    """What the cluster did to the pod, in words; empty if it did nothing."""
    name, told = pod["metadata"]["name"], _conditions(pod).get("DisruptionTarget", {})
    if pod["status"].get("reason") == "Evicted":
        return _evicted(name, pod["status"])
    if told.get("status") != "True":
        return ""
    return f"{name} {DISRUPTIONS.get(told.get('reason', ''), 'was taken away')}{_after_colon(_said(told))}"


def _evicted(name: str, why: Object) -> str:
    return f"{name} was evicted by its node: {_said(why)}"


def _death(name: str, pod: Object, container: str, code: int, reason: str) -> str:
    if reason == "OOMKilled":
        limits: Object = next((c.get("resources", {}).get("limits", {}) for c in pod["spec"]["containers"] if c["name"] == container), {})
        return f"{name} ran out of memory (OOMKilled; its limit is {limits.get('memory', 'the node')})"
    return f"{name} ended with exit code {code}{f' ({reason})' if reason not in ('', 'Error', 'Completed') else ''}"


def age(job: Object) -> tuple[str, str]:
    """A sort key that puts the oldest job first."""
    return job["metadata"]["creationTimestamp"], job["metadata"]["name"]


def _trouble(pod: Object, events: list[Object]) -> tuple[Cause, str] | None:
    """Why a pod does not run."""
    name = pod["metadata"]["name"]
    if turned_away(pod):
        reason = pod["status"].get("reason", "Failed")
        return "refused", f"{name} was turned away by the node {_node(pod)} ({reason}): {_said(pod['status'])}"
    scheduled = _conditions(pod).get("PodScheduled", {})
    if scheduled.get("status") == "False":
        message = _said(scheduled) or scheduled.get("reason", "")
        return "room" if "Insufficient" in message else "place", f"{name} cannot be scheduled: {message}"
    for status in _container_statuses(pod):
        waiting = status.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in PULL:
            return "broken", f"{name}: the image {status.get('image', '')} cannot be pulled ({reason}): {_said(waiting)}"
        if reason in CONFIGURATION:
            return "broken", f"{name} cannot be started ({reason}): {_said(waiting)}"
    about = [e for e in events if e["involvedObject"].get("uid") == pod["metadata"]["uid"] and e.get("reason") in SETTING_UP]
    if about and pod["status"].get("phase") == "Pending":
        return "broken", f"{name} cannot be set up ({_newest(about)['reason']}): {_said(_newest(about))}"
    return None


def _refused(events: Iterable[Object]) -> tuple[Cause, str] | None:
    """Why a pod of a job could not be created, by the events about the job."""
    about = [event for event in events if "FailedCreate" in event.get("reason", "")]
    if not about:
        return None
    message = _said(_newest(about))
    if "exceeded quota" in message:
        return "room", f"the namespace's quota is exhausted: {message.partition('exceeded quota: ')[2] or message}"
    if "violates PodSecurity" in message:
        return "broken", f"the namespace's PodSecurity refuses the pods: {message.partition('violates ')[2]}"
    return "broken", f"the pods are refused: {message}"


def _node(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", "that it was to have"))


def _container_statuses(pod: Object) -> list[Object]:
    return [*(pod["status"].get("initContainerStatuses") or []), *(pod["status"].get("containerStatuses") or [])]


def _newest(events: list[Object]) -> Object:
    return max(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or e["metadata"].get("creationTimestamp") or ""))


def _conditions(thing: Object) -> dict[str, Object]:
    """The conditions of a pod or another object, by their types."""
    return {condition["type"]: condition for condition in thing.get("status", {}).get("conditions") or []}


def _said(what: Object) -> str:
    """The message of a condition, a status or an event, in one line."""
    return " ".join((what.get("message") or "").split())[:300]


def _after_colon(message: str) -> str:
    return f": {message}" if message else ""
