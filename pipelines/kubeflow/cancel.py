"""Stops a run's jobs in a cluster, no matter who started them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from components.launcher.cluster import Cluster
from components.launcher.followers import stop_job
from components.launcher.job import run_label
from components.launcher.profile import Profile
from components.record.plan_parameter import wisher
from edm2core.errors import InputError
from edm2core.plan.manifest import Ref
from edm2core.store.base import Store
from edm2core.store.runs import load_plan
from edm2core.store.wanted import unwant

TRAINING = "edm2-trajectory-"
LOOK_S = 1.0


def stop_jobs(cluster: Cluster, profile: Profile, run: str, say: Callable[[str], None]) -> list[str]:
    """Suspend the run's jobs, which then save their states, and wait until their pods are gone. Returns the names of the stopped jobs.

    A job that another run wants too goes on. A job that Kubeflow's ending tasks have suspended already counts as stopped.
    """
    stopped = [job["metadata"]["name"] for job in cluster.jobs({run_label(run): "yes"}) if stop_job(cluster, profile, job, run, say)]
    end = time.monotonic() + profile.grace_s + LOOK_S
    while (left := [name for name in stopped if cluster.pods(name)]) and time.monotonic() < end:
        time.sleep(LOOK_S)
    for name in left:
        say(f"{name} still has pods after {profile.grace_s} s")
    return stopped


def take_back(store: Store, run: str) -> None:
    """Record that Kubeflow's run wants no more snapshots. Its last task does this too, but may not have run."""
    with suppress(InputError):  # a run that has no plan yet wants none
        unwant(store, load_plan(store, run)[1], wisher(run))


def saved_states(store: Store, jobs: Iterable[str]) -> dict[str, float | None]:
    """For each of the jobs that trains: the age in seconds of its latest saved state, None if it has none."""
    ages: dict[str, float | None] = {}
    for name in jobs:
        if name.startswith(TRAINING):
            key, _, _store = name.removeprefix(TRAINING).partition("-")
            scratch = Ref("trajectory", key).scratch
            states = [entry.age_s for slot in ("state-0", "state-1") for entry in store.list(f"{scratch}/{slot}/")]
            ages[name] = min(states, default=None)
    return ages
