"""Jobs as PyTorchJobs of a cluster; they go on when this process ends, and whoever comes next adopts them.

Who follows a job says so by an annotation that it renews. So whoever is told to stop knows, without asking anybody, whether its first
request has to suspend the job. A job that a queue (Kueue) suspends and resumes is deleted instead; its state is in the store either way.
"""

from __future__ import annotations

import calendar
import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from components.launcher.cluster import Cluster, ClusterError
from components.launcher.diagnose import (
    Death,
    Diagnosis,
    Kind,
    active,
    age,
    deaths,
    diagnose,
    evictions,
    finished,
    has_begun,
    out_of_reach,
    suspended,
)
from components.launcher.job import DIGEST, run_label, to_manifest
from components.launcher.log_store import LogRecord, log_folder
from components.launcher.podlogs import PodLogs
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec, Status
from edm2core.store.runs import Run
from edm2core.worker.exit_codes import FAILED

__all__ = ["PyTorchJobBackend", "backend_of", "to_manifest"]

Object = dict[str, Any]
Answer = TypeVar("Answer")
LOOK_S = 1.0  # between two looks at a job
BEAT_S = 15.0  # between two signs of life of a follower
SILENT_S = 45.0  # without one, a follower is taken for gone
BROKEN_S = 40.0  # that something which waiting rarely mends may last: an image's registry may be back in a moment
ROOM_S = 20.0  # that a job without room for all of its pods keeps what it has, while an older one waits or works
MAKE_WAY_S = 60.0  # that it then keeps nothing
LEAVE_S = 30.0  # beyond its grace that a pod may take to end, until its node is taken for gone
AWAY_S = 60.0  # that an API server may not answer when a job is to be started; one that is followed is followed on
DRAIN_S = 5.0
FOLLOWER = "follower.edm2/"
FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MADE_WAY = "edm2/makes-way-for"


def backend_of(profile: Profile, record: Run, owner: Object | None = None) -> PyTorchJobBackend:
    """The profile's cluster as a place for a run's jobs; `owner` is an ownerReference to what they are to be deleted with."""
    return PyTorchJobBackend(profile, Cluster.connect(profile), record, owner)


class PyTorchJobBackend:
    """Starts, watches and stops jobs of one namespace. A job belongs to nobody: `start` adopts one that is there."""

    def __init__(self, profile: Profile, cluster: Cluster, record: Run | None = None, owner: Object | None = None) -> None:
        self._profile, self._cluster, self._record, self._owner = profile, cluster, record, owner
        self._me = FOLLOWER + secrets.token_hex(4)
        self._jobs: dict[str, _Followed] = {}
        self._stopped: set[str] = set()  # while they were being started, perhaps

    def start(self, spec: JobSpec) -> None:
        """Create the job, resume the suspended one, or adopt the running one of that name; one that has ended is replaced."""
        run = self._record.id if self._record else ""
        wanted = to_manifest(spec, self._profile, run=run, owner=self._owner)
        wanted["metadata"]["annotations"][self._me] = _now()
        mark = {"metadata": {"annotations": {self._me: _now(), MADE_WAY: None}, "labels": {run_label(run): "yes"} if run else {}}}
        self._stopped.discard(spec.name)
        while not _patiently(lambda: self._try_to_start(spec, wanted, mark)):
            pass
        before = self._jobs.get(spec.name)
        followed = _Followed(spec.name, before.logs if before and not before.logs.closed else self._logs_of(spec))
        self._jobs[spec.name] = followed
        if spec.name in self._stopped:
            self._let_go(followed)

    def _try_to_start(self, spec: JobSpec, wanted: Object, mark: Object) -> bool:
        """One step towards a job that works; True if it does, False if what was found has changed."""
        job = self._cluster.job(spec.name)
        if job is None:
            return self._cluster.create_job(wanted)
        if "deletionTimestamp" in job["metadata"] or finished(job):
            self._remove(spec.name)
            return False
        mark = self._owned(job, mark)
        if not suspended(job) or self._profile.queue:
            return self._cluster.patch_job(spec.name, mark)
        if job["metadata"].get("annotations", {}).get(DIGEST) != wanted["metadata"]["annotations"][DIGEST]:
            self._remove(spec.name)  # the profile has changed since; its state is in the store
            return False
        self._wait_for_end(spec.name, self._profile.grace_s)
        return self._cluster.patch_job(spec.name, {**mark, "spec": {"runPolicy": {"suspend": False}}})

    def _owned(self, job: Object, mark: Object) -> Object:
        """The change that also makes the job belong to this run's Workflow, so that it is not deleted along with another's before."""
        owners = job["metadata"].get("ownerReferences", [])
        if self._owner is None or any(owner["uid"] == self._owner["uid"] for owner in owners):
            return mark
        return {**mark, "metadata": {**mark["metadata"], "ownerReferences": [*owners, self._owner]}}

    def poll(self, name: str) -> Status:
        followed = self._jobs.get(name)
        if followed is None:
            job = _patiently(lambda: self._cluster.job(name))
            return Status("queued" if job is not None and active(job) else "absent")
        with followed.lock:
            if not followed.status.over and time.monotonic() - followed.looked > LOOK_S:
                try:
                    followed.status = self._look(followed)
                except ClusterError as error:
                    if error.permanent:
                        raise
                    followed.status = Status(followed.status.state, error.what, None, followed.restarts, followed.lost)
                followed.looked = time.monotonic()
            return followed.status

    def logs(self, name: str) -> list[str]:
        followed = self._jobs.get(name)
        return followed.logs.take() if followed else []

    def stop(self, name: str, grace_s: float) -> None:
        """First of all one request that makes the job save and end, unless another process follows it; then wait for its pods' end."""
        self._stopped.add(name)
        followed = self._jobs.get(name)
        if followed is None or followed.status.over:
            return
        if self._let_go(followed):
            self._wait_for_end(name, grace_s)
        followed.logs.close()

    def stop_all(self, grace_s: float) -> None:
        """Stop every job, all at once; says on standard error what could not be stopped."""

        def stop(name: str) -> None:
            try:
                self.stop(name, grace_s)
            except ClusterError as error:
                sys.stderr.write(f"The job {name} could not be stopped. {error}\n")

        threads = [threading.Thread(target=stop, args=(name,)) for name in list(self._jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def kill_all(self) -> None:
        """Nothing: what runs in the cluster does not die with this process."""

    def close(self, grace_s: float) -> None:
        """Follow no job any more; they go on."""
        for followed in self._jobs.values():
            with contextlib.suppress(ClusterError):
                self._cluster.patch_job(followed.name, {"metadata": {"annotations": {self._me: None}}})
            followed.logs.close()

    def _look(self, followed: _Followed) -> Status:
        job, pods = self._cluster.job(followed.name), self._cluster.pods(followed.name)
        found, events = diagnose(job, pods), list[Object]()
        if job is not None and found.missing:
            uids = {job["metadata"]["uid"], *(pod["metadata"]["uid"] for pod in pods)}
            events = self._cluster.events(uids | followed.seen)
            found = diagnose(job, pods, events)
        followed.logs.watch(pods)
        if followed.logs.refused:
            raise followed.logs.refused
        death = followed.count(pods, events, found.kind == "suspended")
        if job is None or found.state in ("done", "failed"):
            followed.logs.drain(DRAIN_S)
            return Status(found.state, found.reason, found.code, followed.restarts)
        self._beat(followed, job)
        reason = self._wait(followed, job, found) + self._free(followed, pods)
        patience = {"broken": BROKEN_S, **dict.fromkeys(("room", "place", "refused"), self._profile.patience_s)}.get(followed.kind)
        if patience is not None and followed.lasted > patience:
            self._let_go(followed)
            return Status("failed", f"{reason} (for {followed.lasted:.0f} s)", FAILED, followed.restarts)
        return Status(found.state, death or reason, None, followed.restarts, followed.lost)

    def _wait(self, followed: _Followed, job: Object, found: Diagnosis) -> str:
        """What the job waits for. One that lacks room makes way for an older one: two that are half there would wait for ever."""
        kind, way = found.kind, job["metadata"].get("annotations", {}).get(MADE_WAY, "")
        if self._profile.queue or not (kind == "room" or (kind == "suspended" and way)):
            return followed.note(kind, found.reason, bool(found.missing))
        others = [other for other in self._cluster.jobs() if other["metadata"]["name"] != followed.name and active(other)]
        older = [other["metadata"]["name"] for other in sorted(others, key=age) if age(other) < age(job)]
        followed.note("turn" if kind == "room" and others else kind, found.reason, bool(found.missing))
        if kind == "suspended":
            if not older or followed.lasted > MAKE_WAY_S:
                self._hold(followed.name, False, {MADE_WAY: None})
            return f"makes way for the older job {way}"
        if older and followed.lasted > ROOM_S:
            self._hold(followed.name, True, {MADE_WAY: older[0]})
        return found.reason + (f"; waits for {len(others)} other jobs" if others else "")

    def _free(self, followed: _Followed, pods: list[Object]) -> str:
        """Remove pods that ought to have ended long ago, whose node does not say so: their names are needed for new ones. In words.

        One that runs on unseen does no harm: whoever writes for a job says which generation of it he is.
        """
        stuck = followed.overdue(pods)
        for pod in stuck:
            name = pod["metadata"]["name"]
            try:
                self._cluster.remove_pod(name, pod["metadata"]["uid"])
            except ClusterError as error:
                return f"; {name} cannot be removed from its lost node ({error.what}); remove it with kubectl delete pod {name} --force"
        return f"; {', '.join(pod['metadata']['name'] for pod in stuck)} removed, since the node does not end it" if stuck else ""

    def _beat(self, followed: _Followed, job: Object) -> None:
        """Say that this process follows the job, and remember who else does."""
        beats = signs_of_life(job)
        followed.others.see({name: beat for name, beat in beats.items() if name != self._me})
        if time.monotonic() - followed.beaten > BEAT_S:
            gone = dict.fromkeys(followed.others.silent(4 * SILENT_S))
            self._cluster.patch_job(followed.name, {"metadata": {"annotations": {**gone, self._me: _now()}}})
            followed.beaten = time.monotonic()

    def _let_go(self, followed: _Followed) -> bool:
        """One request: suspend the job, or, if others follow it, only leave it; True if it ends."""
        if followed.others.alive(SILENT_S):
            self._cluster.patch_job(followed.name, {"metadata": {"annotations": {self._me: None}}})
            return False
        if self._profile.queue:
            self._cluster.delete_job(followed.name)
        else:
            self._hold(followed.name, True, {self._me: None})
        return True

    def _hold(self, name: str, hold: bool, annotations: dict[str, str | None]) -> None:
        self._cluster.patch_job(name, {"metadata": {"annotations": annotations}, "spec": {"runPolicy": {"suspend": hold}}})

    def _remove(self, name: str) -> None:
        self._cluster.delete_job(name)
        while self._cluster.job(name) is not None:
            time.sleep(LOOK_S / 4)
        self._wait_for_end(name, self._profile.grace_s)

    def _wait_for_end(self, name: str, seconds: float) -> None:
        """Wait until the job has no pods, or for that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._cluster.pods(name):
            time.sleep(LOOK_S / 4)

    def _logs_of(self, spec: JobSpec) -> PodLogs:
        record = self._record
        return PodLogs(self._cluster, LogRecord(record.store, log_folder(record.id, spec.task)) if record else None)


class _Others:
    """Other followers of a job: what counts is when this process saw them change, not what their clocks say."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}

    def see(self, beats: dict[str, str]) -> None:
        seen = {}
        for name, beat in beats.items():
            known, when = self._seen.get(name, ("", 0.0))
            if known != beat:
                when = time.monotonic() - (0.0 if known else _age_s(beat))
            seen[name] = beat, when
        self._seen = seen

    def alive(self, within_s: float) -> bool:
        return any(time.monotonic() - seen < within_s for _, seen in self._seen.values())

    def silent(self, for_s: float) -> list[str]:
        return [name for name, (_, seen) in self._seen.items() if time.monotonic() - seen > for_s]


@dataclass
class _Followed:
    """A job as this process sees it."""

    name: str
    logs: PodLogs
    status: Status = field(default_factory=lambda: Status("queued"))
    looked: float = 0.0
    beaten: float = field(default_factory=time.monotonic)
    kind: Kind = ""
    since: float = 0.0
    why: str = ""
    restarts: int = 0
    lost: bool = False  # the last restart was for no fault of the job's that is known
    others: _Others = field(default_factory=_Others)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _uids: dict[str, set[str]] = field(default_factory=dict)  # pod's name → uids it has had since the job was last suspended
    _before: int = 0  # restarts until then
    _deaths: dict[str, Death] = field(default_factory=dict)  # pod's uid → how it ended
    _told: set[str] = field(default_factory=set)
    _leaving: dict[str, float] = field(default_factory=dict)  # uid → when it was first seen to be told to end

    def note(self, kind: Kind, why: str, missing: bool) -> str:
        """Why the job does not run, at this look; the words for it.

        A pod that its node turned away is made again at once: what is seen in between is no sign of that being over.
        """
        if self.kind == "refused" and kind == "" and missing:
            return self.why
        if kind != self.kind:
            self.kind, self.since = kind, time.monotonic()
        self.why = why
        return why

    def overdue(self, pods: list[Object]) -> list[Object]:
        """Pods that should have ended by now, by this process's clock."""
        ending = {pod["metadata"]["uid"]: pod for pod in pods if "deletionTimestamp" in pod["metadata"]}
        self._leaving = {uid: self._leaving.get(uid, time.monotonic()) for uid in ending}
        longest = {uid: pod["metadata"].get("deletionGracePeriodSeconds", 0) + LEAVE_S for uid, pod in ending.items()}
        return [pod for uid, pod in ending.items() if time.monotonic() - self._leaving[uid] > longest[uid]]

    @property
    def lasted(self) -> float:
        """Seconds for which it has not been running for that kind of reason."""
        return time.monotonic() - self.since

    @property
    def seen(self) -> set[str]:
        """The uids of all pods that have begun since the job was last suspended."""
        return set().union(*self._uids.values())

    def count(self, pods: list[Object], events: list[Object], held: bool) -> str:
        """Count how often pods began again, an incident that takes them all as one; how the last ones died, if they just did."""
        before = self.restarts
        if any(out_of_reach(pod) for pod in pods):  # others that begin again for want of it can get nowhere
            self._uids, self._before = {}, self.restarts
        for pod in pods:
            if has_begun(pod):
                self._uids.setdefault(pod["metadata"]["name"], set()).add(pod["metadata"]["uid"])
        self.restarts = self._before + max((len(uids) - 1 for uids in self._uids.values()), default=0)
        if held:
            self._uids, self._before = {}, self.restarts
        self._deaths.update({death.uid: death for death in (*deaths(pods), *evictions(events)) if death.code})
        if self.restarts == before:
            return ""
        new = [death for uid, death in self._deaths.items() if uid not in self._told]
        self._told |= set(self._deaths)
        self.lost = not any(death.own_fault for death in new)
        causes = [death for death in new if death.first_cause]
        return next((death.words for death in causes or new), "pods were lost")


def _patiently(request: Callable[[], Answer]) -> Answer:
    """Ask again for a while, if the API server is away or overloaded."""
    end = time.monotonic() + AWAY_S
    while True:
        try:
            return request()
        except ClusterError as error:
            if error.permanent or time.monotonic() > end:
                raise
            time.sleep(LOOK_S)


def signs_of_life(job: Object) -> dict[str, str]:
    """When each of those who follow a job, and have not taken leave of it, last said so."""
    return {name: beat for name, beat in job["metadata"].get("annotations", {}).items() if name.startswith(FOLLOWER)}


def _now() -> str:
    return time.strftime(FORMAT, time.gmtime())


def _age_s(beat: str) -> float:
    """Seconds since that time, as far as clocks agree."""
    try:
        return max(0.0, time.time() - calendar.timegm(time.strptime(beat, FORMAT)))
    except ValueError:
        return 0.0
