"""Follows one job of a cluster: where it stands, how often it began again, how long it waits for what, when to give it up."""

import threading
import time
from dataclasses import replace
from typing import Any

from components.launcher.cluster import Cluster, ClusterError
from components.launcher.diagnose import (
    Cause,
    Death,
    Diagnosis,
    age,
    deaths,
    diagnose,
    evictions,
    has_begun,
    out_of_reach,
    turned_away,
    wait_in_queue,
)
from components.launcher.followers import OtherFollowers, now, signs_of_life
from components.launcher.gathering import TRIES_AGAIN, WHOLE, Gathering
from components.launcher.job_kinds import JobKind
from components.launcher.podlogs import PodLogs
from components.launcher.profile import Profile
from components.launcher.resizing import SIZE, Resizing
from components.launcher.spec import Status
from edm2core.worker.exit_codes import FAILED

Object = dict[str, Any]
LOOK_S = 1.0  # the least time between two looks at a job
SOON_S = 0.25  # the same while its pods are made anew: each look may be followed by the next step
SIGN_S = 15.0  # the least time between two signs of life of a follower
BROKEN_S = 40.0  # how long a fault of cause "broken" may last: an image's registry may be back in a moment
ROOM_S = 20.0  # the most time that a job without room for all of its pods keeps some of them while an older job waits or works
MAKE_WAY_S = 60.0  # the most time that this job then goes without pods, for the older one
LEAVE_S = 30.0  # how much longer than its grace period a pod may take to end; after that its node counts as gone
DRAIN_S = 5.0  # the most time to wait for the rest of a finished job's output
MADE_WAY = "edm2/makes-way-for"  # annotation: the older job for which this one is suspended


class Follower:
    """A job of a cluster as this process sees it. `me` names the annotation by which the job says that this process follows it."""

    def __init__(self, cluster: Cluster, profile: Profile, name: str, me: str, logs: PodLogs) -> None:
        self.name, self.logs, self.status = name, logs, Status("queued")
        self._cluster, self._profile, self._kind, self._me = cluster, profile, cluster.kind, me
        self._restarts, self._others, self._waiting = _Restarts(self._kind), OtherFollowers(), _Waiting()
        self._gathering, self._resizing = Gathering(profile.rejoin_s), Resizing(cluster, name, bool(profile.queue))
        self._lock = threading.Lock()
        self._looked, self._pause_s, self._signed = 0.0, LOOK_S, time.monotonic()
        self._leaving: dict[str, float] = {}  # uid of a pod → when this process first saw that it was told to end

    def poll(self) -> Status:
        """Where the job stood at most LOOK_S ago, or before the API server became unreachable."""
        with self._lock:
            if not self.status.over and time.monotonic() - self._looked > self._pause_s:
                try:
                    self.status = self._look()
                except ClusterError as error:
                    if error.permanent:
                        raise
                    self.status = Status(self.status.state, error.what, None, self._restarts.number, self._restarts.lost)
                self._looked = time.monotonic()
            return self.status

    def stop(self) -> bool:
        """Stop the job by one request or, if others follow it, only sign out. True if the job ends."""
        if self._others.any_alive():
            self.sign_out()
            return False
        if self._profile.queue:
            self._cluster.delete_job(self.name)
        else:
            self._suspend(True, {self._me: None})
        return True

    def sign_out(self) -> None:
        """Say that this process no longer follows the job."""
        self._cluster.patch_job(self.name, {"metadata": {"annotations": {self._me: None}}})

    def _look(self) -> Status:
        job, pods = self._cluster.job(self.name), self._cluster.pods(self.name)
        if words := self._resizing.step(job, pods, self._restarts.any_lost(job, pods)):
            self.logs.watch(pods)
            self._pause_s, replaces = SOON_S, self._resizing.replaces
            events = self._events(job, self._restarts.uids) if job is not None and replaces else []
            self._restarts.count(pods, events, suspended=not replaces)
            if job is not None:
                self._sign(job)
            return Status("queued", words + self._remove_overdue(pods), None, self._restarts.number, self._restarts.lost)
        self._pause_s = LOOK_S
        diagnosis, events = diagnose(self._kind, job, pods), list[Object]()
        if job is not None and diagnosis.missing:
            uids = {pod["metadata"]["uid"] for pod in pods} | self._restarts.uids
            events = self._events(job, uids)
            diagnosis = diagnose(self._kind, job, pods, events)
        if job is not None and diagnosis.cause == "suspended" and self._profile.queue:
            diagnosis = replace(diagnosis, reason=self._queue_says(job, self._profile.queue))
        self.logs.watch(pods)
        if self.logs.refused:
            raise self.logs.refused
        death = self._restarts.count(pods, events, diagnosis.cause == "suspended")
        if job is None or diagnosis.state in ("done", "failed"):
            self.logs.drain(DRAIN_S)
            return Status(diagnosis.state, diagnosis.reason, diagnosis.code, self._restarts.number)
        self._sign(job)
        gathering, deleted = self._gather(job, diagnosis)
        if deleted:
            return Status("absent", gathering, None, self._restarts.number, lost=True)
        reason = (gathering or self._wait(job, diagnosis)) + self._remove_overdue(pods) + self._ask_for_fewer(job, diagnosis)
        patience = {"broken": BROKEN_S, **dict.fromkeys(("room", "place", "refused"), self._profile.patience_s)}.get(self._waiting.cause)
        if patience is not None and self._waiting.seconds > patience:
            self.stop()
            return Status("failed", f"{reason} (for {self._waiting.seconds:.0f} s)", FAILED, self._restarts.number)
        return Status(diagnosis.state, death or reason, None, self._restarts.number, self._restarts.lost)

    def _queue_says(self, job: Object, queue: str) -> str:
        """Why Kueue holds the job. Whoever may not read that, or has an older Kueue, is told the queue's name alone."""
        try:
            return wait_in_queue(queue, self._cluster.workloads(job["metadata"]["uid"]))
        except ClusterError as error:
            if error.status not in (403, 404):
                raise
            return wait_in_queue(queue, [])

    def _events(self, job: Object, uids: set[str]) -> list[Object]:
        """Events about the job, and about pods with these uids."""
        return [e for e in self._cluster.events() if e["involvedObject"].get("uid") in uids or self._kind.concerns(job, e)]

    def _sign(self, job: Object) -> None:
        """Say that this process follows the job, and remember who else does."""
        self._others.see({name: sign for name, sign in signs_of_life(job).items() if name != self._me})
        if time.monotonic() - self._signed > SIGN_S:
            gone = dict.fromkeys(self._others.long_gone())
            self._cluster.patch_job(self.name, {"metadata": {"annotations": {**gone, self._me: now()}}})
            self._signed = time.monotonic()

    def _gather(self, job: Object, diagnosis: Diagnosis) -> tuple[str, bool]:
        """Free all pods of a job of which some have waited too long for the others, and try again later, or go on with fewer.

        In a queue only Kueue may suspend the job, so it is deleted, to be started again. Returns in words what is done, and whether the
        job was deleted.
        """
        annotations = job["metadata"].get("annotations", {})
        pausing = diagnosis.cause == "suspended" and TRIES_AGAIN in annotations
        if diagnosis.cause == "suspended" and not pausing:
            return "", False
        wanted, rejoin_s = self._kind.pods_wanted(job), self._profile.rejoin_s
        running = wanted - diagnosis.missing
        advice = self._gathering.see(running, diagnosis.missing, pausing)
        self._waiting.holds = self._gathering.tries > 0
        if advice == "resume":
            self._suspend(False, {TRIES_AGAIN: None})
            return "tries again", False
        whole = max(wanted, int(annotations.get(WHOLE, "0")))
        if not diagnosis.missing and not pausing and self._gathering.grows(whole == wanted):
            self._cluster.patch_job(self.name, {"metadata": {"annotations": {SIZE: str(whole)}}})
            return f"tries to go on with {whole} pods again", False
        if advice == "free" and (fewer := max(self._least(job, wanted), running)) < wanted:
            self._cluster.patch_job(self.name, {"metadata": {"annotations": {SIZE: str(fewer), WHOLE: str(whole)}}})
            return f"{diagnosis.reason}; its other pods have waited for {rejoin_s} s; it goes on with {fewer} of {wanted} pods", False
        if advice == "free" and self._profile.queue:
            self._cluster.delete_job(self.name)
            return f"{diagnosis.reason}; its other pods have waited for {rejoin_s} s and are freed; it goes back into the queue", True
        elif advice == "free":
            self._suspend(True, {TRIES_AGAIN: diagnosis.reason[:200]})
        if advice in ("free", "rest"):
            lacking = diagnosis.reason if advice == "free" else annotations[TRIES_AGAIN]
            freed = f"its other pods have waited for {rejoin_s} s and are freed"
            return f"{lacking}; {freed}; tries again after {self._gathering.pause_s:.0f} s", False
        return "", False

    def _wait(self, job: Object, diagnosis: Diagnosis) -> str:
        """What the job waits for, in words. Without room it makes way for an older job: two with half of their pods would wait for ever."""
        cause, way = diagnosis.cause, job["metadata"].get("annotations", {}).get(MADE_WAY, "")
        if self._profile.queue or not (cause == "room" or (cause == "suspended" and way)):
            return self._waiting.note(cause, diagnosis.reason, bool(diagnosis.missing))
        others = [other for other in self._cluster.jobs() if other["metadata"]["name"] != self.name and self._kind.is_active(other)]
        older = [other["metadata"]["name"] for other in sorted(others, key=age) if age(other) < age(job)]
        self._waiting.note("turn" if cause == "room" and others else cause, diagnosis.reason, bool(diagnosis.missing))
        if cause == "suspended":
            if not older or self._waiting.seconds > MAKE_WAY_S:
                self._suspend(False, {MADE_WAY: None})
            return f"makes way for the older job {way}"
        if older and self._waiting.seconds > ROOM_S:
            self._suspend(True, {MADE_WAY: older[0]})
        return diagnosis.reason + (f"; waits for {len(others)} other jobs" if others else "")

    def _ask_for_fewer(self, job: Object, diagnosis: Diagnosis) -> str:
        """Ask for half as many pods once the queue has held the job for `wait_s`, since Kueue itself admits all of its pods or none.

        Returns in words what is done; empty if nothing is.
        """
        wanted, waited, nodes = self._kind.pods_wanted(job), self._waiting.seconds, self._profile.resources_of("snapshot").nodes
        fewer = max(self._least(job, wanted), wanted // 2)
        held = self._profile.queue is not None and diagnosis.cause == "suspended" and waited >= self._profile.wait_s
        if not held or fewer >= wanted or nodes.min == nodes.max:
            return ""
        self._cluster.patch_job(self.name, {"metadata": {"annotations": {SIZE: str(fewer)}}})
        self._waiting = _Waiting()
        return f"; it has waited for {waited:.0f} s, and asks for {fewer} pods instead of {wanted}"

    def _least(self, job: Object, wanted: int) -> int:
        """The fewest pods with which the job may go on; only a training may have fewer than it was made with."""
        training = job["metadata"]["labels"].get("edm2/stage") == "training"
        return self._profile.resources_of("snapshot").nodes.min if training else wanted

    def _remove_overdue(self, pods: list[Object]) -> str:
        """Remove pods whose node has not reported their end in time, since new pods need their names. Returns in words what was done.

        A removed pod that still runs does no harm: its successor's lease has a newer generation, and what an older generation writes
        is not used.
        """
        ending = {pod["metadata"]["uid"]: pod["metadata"] for pod in pods if "deletionTimestamp" in pod["metadata"]}
        self._leaving = {uid: self._leaving.get(uid, time.monotonic()) for uid in ending}
        removed = []
        for uid, pod in ending.items():
            if time.monotonic() - self._leaving[uid] <= pod.get("deletionGracePeriodSeconds", 0) + LEAVE_S:
                continue
            name = pod["name"]
            try:
                self._cluster.remove_pod(name, uid)
            except ClusterError as error:
                return f"; {name} cannot be removed from its lost node ({error.what}); remove it with kubectl delete pod {name} --force"
            removed.append(name)
        return f"; {', '.join(removed)} removed, since the node does not end it" if removed else ""

    def _suspend(self, suspend: bool, annotations: dict[str, str | None]) -> None:
        self._cluster.patch_job(self.name, {"metadata": {"annotations": annotations}} | self._kind.suspension(suspend))


class _Waiting:
    """Why a job does not run, and since when."""

    def __init__(self) -> None:
        self.cause: Cause = ""
        self.holds = False  # whether the cause holds on although it does not show: the job is only about to try again
        self._since, self._why = 0.0, ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    def note(self, cause: Cause, why: str, missing: bool) -> str:
        """Remember why the job does not run, and return the reason that users are shown: the one before, where it still holds.

        A pod that its node turned away is made again at once. So a look that then finds no cause does not mean that the trouble is over.
        """
        if (self.cause == "refused" or self.holds) and cause == "" and missing:
            return self._why
        if cause != self.cause:
            self.cause, self._since = cause, time.monotonic()
        self._why = why
        return why


class _Restarts:
    """How often a job's pods have begun again, and why. An incident that takes several pods counts once."""

    def __init__(self, kind: JobKind) -> None:
        self.number = 0
        self.lost = False  # whether the last restart came without any pod that had failed by itself
        self._kind = kind
        self._uids: dict[str, set[str]] = {}  # a pod's index → the uids of the pods that have had it since counting last began anew
        self._before = 0  # restarts before counting last began anew
        self._deaths: dict[str, Death] = {}  # a pod's uid → how it ended
        self._told: set[str] = set()  # uids of the pods whose death has been reported
        self._job = ""  # uid of the job that had the following pods
        self._there: set[str] = set()  # indices of the job's pods that have begun

    @property
    def uids(self) -> set[str]:
        """The uids of all pods that have begun since counting last began anew."""
        return set().union(*self._uids.values())

    def any_lost(self, job: Object | None, pods: list[Object]) -> bool:
        """Whether a pod that has begun is gone, has failed or is being removed, and none is there in its place.

        A successor that its node has turned away is there: the reason is its node's, and another new pod would change nothing.
        """
        if job is None or job["metadata"]["uid"] != self._job:
            self._job, self._there = job["metadata"]["uid"] if job else "", set()
        there = {
            self._kind.pod_index(pod["metadata"]["name"])
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"] and (pod["status"].get("phase") != "Failed" or turned_away(pod))
        }
        return not self._there <= there

    def count(self, pods: list[Object], events: list[Object], suspended: bool) -> str:
        """Count new restarts, from the job's pods and events about them. Returns the reason of a new restart in words, else ""."""
        before = self.number
        if any(out_of_reach(pod) for pod in pods):  # until its node is back, the other pods begin again through no fault of theirs
            self._begin_anew()
        for pod in pods:
            if has_begun(pod):
                index = self._kind.pod_index(pod["metadata"]["name"])
                self._uids.setdefault(index, set()).add(pod["metadata"]["uid"])
                self._there.add(index)
        self.number = self._before + max((len(uids) - 1 for uids in self._uids.values()), default=0)
        if suspended:
            self._begin_anew()
        self._deaths.update({death.uid: death for death in (*deaths(pods), *evictions(events)) if death.code})
        if self.number == before:
            return ""
        new = [death for uid, death in self._deaths.items() if uid not in self._told]
        self._told |= set(self._deaths)
        self.lost = not any(death.own_fault for death in new)
        causes = [death for death in new if death.first_cause]
        return next((death.words for death in causes or new), "pods were lost")

    def _begin_anew(self) -> None:
        self._uids, self._before, self._there = {}, self.number, set()
