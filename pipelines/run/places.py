"""Where `edm2 run` does its tasks: as processes of this machine, or as jobs of a cluster that it drives."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.launcher.job import cluster_spec
from components.launcher.local import LocalBackend
from components.launcher.profile import Profile
from components.launcher.spec import Backend, JobSpec, spec_of
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from edm2core.store.runs import Run

GRACE_S = 60.0  # the most time that a stopped training on this machine may take to save its state


@dataclass(frozen=True)
class Place:
    """What a run needs to know of the place where it works."""

    store: str  # the URI of the store that its tasks share
    jobs: int  # how many tasks may run side by side
    shares_disk: bool  # whether its tasks see the files of this machine
    grace_s: float  # how long a stopped training may take to save its state
    backend: Callable[[Run], Backend]  # starts and follows a run's jobs
    spec: Callable[[Task], JobSpec]  # describes the job of a task


def here(store: str, jobs: int | None = None, processes: int | None = None) -> Place:
    """This machine, with so many tasks side by side and so many processes for each training.

    By default one training uses all GPUs. Without GPUs, as many tasks as there are cores run side by side, at most four.
    """
    gpu_count = gpus()
    tasks_at_once, per_training = jobs or (1 if gpu_count else min(_cores(), 4)), processes or max(gpu_count, 1)

    def backend(record: Run) -> Backend:
        return LocalBackend(lambda spec: record.log_path(spec.task), max(1, _cores() // tasks_at_once), forking=not gpu_count)

    def spec(task: Task) -> JobSpec:
        return spec_of(task, store, processes=per_training if STAGES[task.stage].splits_work else 1)

    return Place(store, tasks_at_once, True, GRACE_S, backend, spec)


def on_cluster(profile: Profile, say: Callable[[str], None] = lambda _: None) -> Place:
    """A cluster whose jobs this machine starts and follows. If the profile names no kind of job, `say` gets which one was chosen."""

    def backend(record: Run) -> Backend:
        from components.launcher.cluster import Cluster  # the client of Kubernetes is slow to import
        from components.launcher.cluster_backend import ClusterBackend

        cluster = Cluster.connect(profile)
        if not profile.job:
            say(cluster.choice)
        return ClusterBackend(profile, cluster, record)

    def spec(task: Task) -> JobSpec:
        return cluster_spec(task, profile.store.uri, profile)

    return Place(profile.store.uri, profile.jobs, False, float(profile.grace_s), backend, spec)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """How many GPUs a process that is started here would see, found without importing torch."""
    if not any(driver.exists() for driver in (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/dxg"))):
        return 0  # even if a scheduler's variable names some
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
