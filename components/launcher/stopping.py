"""Stops jobs that a run no longer wants, unless other runs want them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from components.launcher.cluster import Cluster
from components.launcher.followers import SILENT_S, signs_of_life
from components.launcher.job import run_label
from components.launcher.job_kinds import kind_of
from components.launcher.profile import Profile

Object = dict[str, Any]
LOOK_S = 5.0


def stop_job(cluster: Cluster, profile: Profile, job: Object, run: str, say: Callable[[str], None]) -> bool:
    """Suspend a job that a run no longer wants, so that it saves what it has; False if it goes on for other runs, or has ended.

    A job in a queue is deleted: there only Kueue suspends.
    """
    name, labels = job["metadata"]["name"], job["metadata"]["labels"]
    kind, label = kind_of(profile), run_label(run)
    others = [other for other in labels if other.startswith(run_label("")) and other != label]
    if others:
        cluster.patch_job(name, {"metadata": {"labels": {label: None}}})
        say(f"{name} goes on for {', '.join(other.removeprefix(run_label('')) for other in others)}")
        return False
    if kind.ending(job):
        return False
    if profile.queue:
        cluster.delete_job(name)
    elif kind.is_active(job):
        cluster.patch_job(name, kind.suspension(True))
    say(f"{name} is stopping" if kind.is_active(job) else f"{name} is suspended")
    return True


def suspend_unfollowed(cluster: Cluster, profile: Profile, run: str, names: Collection[str], say: Callable[[str], None]) -> list[str]:
    """Suspend those of the named jobs that the run wants and nobody follows; the names of the suspended ones.

    Between two trainings a job has no follower for some seconds: a run that is terminated just then leaves it working for nobody.
    A follower that has not signed out counts until it has missed its next sign of life.
    """
    stopped: list[str] = []
    first: dict[str, dict[str, str]] = {}  # job → the signs of life that were seen first
    end = time.monotonic() + SILENT_S
    while True:
        waiting = False
        for job in cluster.jobs({run_label(run): "yes"}):
            name = job["metadata"]["name"]
            signs = signs_of_life(job)
            if name not in names or not kind_of(profile).is_active(job) or signs != first.setdefault(name, signs):
                continue
            if signs and time.monotonic() < end:
                waiting = True
            elif stop_job(cluster, profile, job, run, say):
                stopped.append(name)
        if not waiting:
            return stopped
        time.sleep(LOOK_S)
