"""Tells which processes follow a job, and stops jobs that nobody follows or wants.

Each follower has an annotation on the job, which it renews as a sign of life. So a follower that is told to stop knows without another
request whether it has to suspend the job or others still follow it.
"""

import calendar
import time
from collections.abc import Callable, Collection
from typing import Any

from components.launcher.cluster import Cluster
from components.launcher.job import run_label
from components.launcher.profile import Profile

Object = dict[str, Any]
FOLLOWER = "follower.edm2/"
SILENT_S = 45.0  # a follower without a sign of life for so long counts as gone
LOOK_S = 5.0  # the time between two looks for new signs of life
FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def signs_of_life(job: Object) -> dict[str, str]:
    """The time of the last sign of life of each follower that has not signed out, by its annotation's name."""
    return {name: sign for name, sign in job["metadata"].get("annotations", {}).items() if name.startswith(FOLLOWER)}


def now() -> str:
    """A sign of life: the time now, as a follower writes it into its annotation."""
    return time.strftime(FORMAT, time.gmtime())


class OtherFollowers:
    """The other followers of a job. Clocks may differ, so what counts is when this process saw a sign of life change."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}  # name → its last sign, and when this process saw it

    def see(self, signs: dict[str, str]) -> None:
        seen = {}
        for name, sign in signs.items():
            known, when = self._seen.get(name, ("", 0.0))
            if known != sign:
                when = time.monotonic() - (0.0 if known else _age_s(sign))
            seen[name] = sign, when
        self._seen = seen

    def any_alive(self) -> bool:
        return any(time.monotonic() - when < SILENT_S for _, when in self._seen.values())

    def long_gone(self) -> list[str]:
        """The followers whose annotation can be removed."""
        return [name for name, (_, when) in self._seen.items() if time.monotonic() - when > 4 * SILENT_S]


def _age_s(sign: str) -> float:
    """How many seconds ago a sign of life was given, by this machine's clock; 0 if the sign is no time, or a time in the future."""
    try:
        return max(0.0, time.time() - calendar.timegm(time.strptime(sign, FORMAT)))
    except ValueError:
        return 0.0


def stop_job(cluster: Cluster, profile: Profile, job: Object, run: str, say: Callable[[str], None]) -> bool:
    """Suspend a job that a run no longer wants, so that it saves its state; False if other runs want it, or if it has ended.

    A job in a queue is deleted instead, since only Kueue may suspend it.
    """
    name, labels = job["metadata"]["name"], job["metadata"]["labels"]
    kind, label = cluster.kind, run_label(run)
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
    """Suspend those of the named jobs of a run that nobody follows; returns their names.

    Between two tasks a training's job has no follower for some seconds. A run that is terminated just then leaves it working for nobody.
    A follower that has not signed out counts until SILENT_S have passed without a sign of life.
    """
    stopped: list[str] = []
    first: dict[str, dict[str, str]] = {}  # job → the signs of life that were seen first
    end = time.monotonic() + SILENT_S
    while True:
        waiting = False
        for job in cluster.jobs({run_label(run): "yes"}):
            name = job["metadata"]["name"]
            signs = signs_of_life(job)
            if name not in names or not cluster.kind.is_active(job) or signs != first.setdefault(name, signs):
                continue
            if signs and time.monotonic() < end:
                waiting = True
            elif stop_job(cluster, profile, job, run, say):
                stopped.append(name)
        if not waiting:
            return stopped
        time.sleep(LOOK_S)
