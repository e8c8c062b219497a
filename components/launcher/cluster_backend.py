"""The backend whose jobs run in a cluster. They go on when this process ends, and the next process that starts them adopts them.

To stop a job is to suspend it. In a queue only Kueue may do that, so a job in a queue is deleted. What it has saved stays in the store.
"""

import contextlib
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.launcher.cluster import Cluster, ClusterError, patiently
from components.launcher.follower import MADE_WAY, Follower
from components.launcher.followers import FOLLOWER, OtherFollowers, now, signs_of_life
from components.launcher.gathering import TRIES_AGAIN
from components.launcher.job import DIGEST, run_label, to_manifest
from components.launcher.log_store import LogRecord, log_folder
from components.launcher.podlogs import PodLogs
from components.launcher.profile import Profile
from components.launcher.resizing import RESIZES
from components.launcher.spec import JobSpec, Status
from edm2core.store.runs import Run

Object = dict[str, Any]
POLL_S = 0.25  # the time between two looks at whether a job or its pods are gone


class ClusterBackend:
    """Starts, follows and stops the jobs of one namespace. `owner` is an ownerReference: when that object is deleted, the jobs are too.

    Methods raise ClusterError if the API server cannot be reached or refuses a request.
    """

    def __init__(self, profile: Profile, cluster: Cluster, record: Run, owner: Object | None = None) -> None:
        self._cluster, self._kind, self._record, self._owner = cluster, cluster.kind, record, owner
        self._profile = profile.model_copy(update={"job": cluster.kind.word})
        self._me = FOLLOWER + secrets.token_hex(4)
        self._followers: dict[str, Follower] = {}
        self._stopped: set[str] = set()  # names of jobs that were told to stop, perhaps during `start`

    def start(self, spec: JobSpec) -> None:
        """Create the job. If there is one of that name, adopt it if it runs, resume it if it is suspended, replace it if it has ended."""
        run = self._record.id
        wanted = to_manifest(spec, self._profile, run=run, owner=self._owner)
        wanted["metadata"]["annotations"][self._me] = now()
        annotations = {self._me: now(), MADE_WAY: None, TRIES_AGAIN: None, RESIZES: None}
        mark = {"metadata": {"annotations": annotations, "labels": {run_label(run): "yes"}}}
        self._stopped.discard(spec.name)
        while not patiently(lambda: self._try_to_start(spec, wanted, mark)):
            pass
        if (before := self._followers.get(spec.name)) and not before.logs.closed.is_set():
            logs = before.logs
        else:
            record = LogRecord(self._record.store, log_folder(run, spec.task))
            logs = PodLogs(self._cluster, self._kind, record, ranks=spec.nodes * spec.processes > 1)
        follower = self._followers[spec.name] = Follower(self._cluster, self._profile, spec.name, self._me, logs)
        if spec.name in self._stopped:
            follower.stop()

    def _try_to_start(self, spec: JobSpec, wanted: Object, mark: Object) -> bool:
        """Make one step towards a running job; False if the job has to be looked at again."""
        job = self._cluster.job(spec.name)
        if job is None:
            self._remove_other_kinds(spec.name)
            return self._cluster.create_job(wanted)
        if "deletionTimestamp" in job["metadata"] or self._kind.ending(job):
            self._remove(self._cluster, spec.name)
            return False
        owners = job["metadata"].get("ownerReferences", [])
        if self._owner and all(owner["uid"] != self._owner["uid"] for owner in owners):  # so the job outlives an earlier run's Workflow
            mark = {**mark, "metadata": {**mark["metadata"], "ownerReferences": [*owners, self._owner]}}
        if not self._kind.is_suspended(job) or self._profile.queue:
            return self._cluster.patch_job(spec.name, mark)
        if job["metadata"].get("annotations", {}).get(DIGEST) != wanted["metadata"]["annotations"][DIGEST]:
            self._remove(self._cluster, spec.name)  # the profile has changed since
            return False
        self._wait_for_end(self._cluster, spec.name, self._profile.grace_s)
        return self._cluster.patch_job(spec.name, mark | self._kind.suspension(False))

    def _remove_other_kinds(self, name: str) -> None:
        """Remove a job for the same work that has another kind, as after a change of the profile. It saves its state first.

        Raises ClusterError if another process follows that job: that process would start it again.
        """
        for cluster in self._cluster.with_other_kinds():
            try:
                job = cluster.job(name)
            except ClusterError as error:
                if error.status in (403, 404):  # the cluster does not know that kind, or this account has no right to it
                    continue
                raise
            if job is None:
                continue
            others = OtherFollowers()
            others.see(signs_of_life(job))
            if cluster.kind.is_active(job) and others.any_alive():
                what = f"The same work is done as a {cluster.kind.name}, which another run follows."
                do_next = f"Stop that run first, or set `job: {cluster.kind.word}` in the profile."
                raise ClusterError(what, 409, where=f"{cluster.kind.word} {name}", do_next=do_next)
            self._remove(cluster, name)

    def poll(self, name: str) -> Status:
        if follower := self._followers.get(name):
            return follower.poll()
        job = patiently(lambda: self._cluster.job(name))
        return Status("queued" if job is not None and self._kind.is_active(job) else "absent")

    def logs(self, name: str) -> list[str]:
        follower = self._followers.get(name)
        return follower.logs.take() if follower else []

    def stop(self, name: str, grace_s: float) -> None:
        """Stop the job by the very first request, then wait until its pods are gone. A job that another process follows goes on."""
        self._stopped.add(name)
        follower = self._followers.get(name)
        if follower is None or follower.status.over:
            return
        if follower.stop():
            self._wait_for_end(self._cluster, name, grace_s)
        follower.logs.close()

    def stop_all(self, grace_s: float) -> None:
        """Stop every job, all at once; says on standard error what could not be stopped."""

        def stop(name: str) -> None:
            try:
                self.stop(name, grace_s)
            except ClusterError as error:
                sys.stderr.write(f"The job {name} could not be stopped. {error}\n")

        with ThreadPoolExecutor(max(1, len(self._followers))) as pool:
            list(pool.map(stop, list(self._followers)))

    def kill_all(self) -> None:
        """Do nothing: jobs of a cluster outlive this process."""

    def close(self, grace_s: float) -> None:
        """Stop following all jobs. They go on."""
        for follower in self._followers.values():
            with contextlib.suppress(ClusterError):
                follower.sign_out()
            follower.logs.close()

    def _remove(self, cluster: Cluster, name: str) -> None:
        cluster.delete_job(name)
        while cluster.job(name) is not None:
            time.sleep(POLL_S)
        self._wait_for_end(cluster, name, self._profile.grace_s)

    def _wait_for_end(self, cluster: Cluster, name: str, seconds: float) -> None:
        """Wait until the job has no pods, for `seconds` at most."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and cluster.pods(name):
            time.sleep(POLL_S)
