"""Stops jobs that a run wants no more, unless others want them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from components.launcher.cluster import Cluster
from components.launcher.diagnose import active, finished
from components.launcher.job import run_label
from components.launcher.profile import Profile
from components.launcher.pytorchjob import SILENT_S, signs_of_life

Object = dict[str, Any]
LOOK_S = 5.0


def stop_job(cluster: Cluster, profile: Profile, job: Object, run: str, say: Callable[[str], None]) -> bool:
    """Suspend a job for a run, so that it saves what it has; False if it goes on for others, or has ended.

    One that waits in a queue of Kueue's is deleted, since suspending is Kueue's there.
    """
    name, labels = job["metadata"]["name"], job["metadata"]["labels"]
    label = run_label(run)
    others = [other for other in labels if other.startswith(run_label("")) and other != label]
    if others:
        cluster.patch_job(name, {"metadata": {"labels": {label: None}}})
        say(f"{name} goes on for {', '.join(other.removeprefix(run_label('')) for other in others)}")
        return False
    if finished(job):
        return False
    if profile.queue:
        cluster.delete_job(name)
    elif active(job):
        cluster.patch_job(name, {"spec": {"runPolicy": {"suspend": True}}})
    say(f"{name} is stopping" if active(job) else f"{name} is suspended")
    return True


def suspend_unfollowed(cluster: Cluster, profile: Profile, run: str, names: Collection[str], say: Callable[[str], None]) -> list[str]:
    """Suspend those of the jobs that the run wants and nobody follows; the names of all that were.

    Between two trainings a job has no follower for some seconds: a run that is terminated just then leaves it working for nobody. Whether a
    follower that has not taken leave is still there is told by its next sign of life.
    """
    stopped: list[str] = []
    first: dict[str, Object] = {}
    end = time.monotonic() + SILENT_S
    while True:
        waiting = False
        for job in cluster.jobs({run_label(run): "yes"}):
            name = job["metadata"]["name"]
            beats = signs_of_life(job)
            if name not in names or not active(job) or beats != first.setdefault(name, beats):
                continue
            if beats and time.monotonic() < end:
                waiting = True
            elif stop_job(cluster, profile, job, run, say):
                stopped.append(name)
        if not waiting:
            return stopped
        time.sleep(LOOK_S)
