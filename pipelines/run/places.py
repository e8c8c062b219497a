"""Where `edm2 run` does its tasks: as processes of this machine, or as jobs of a cluster that it drives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.launcher.job import cluster_spec
from components.launcher.local import LocalBackend
from components.launcher.profile import Profile
from components.launcher.spec import Backend, JobSpec, spec_of
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from edm2core.store.runs import Run

GRACE_S = 60.0  # on this machine


class Place(Protocol):
    """What a run needs to know of where it works."""

    @property
    def store(self) -> str:
        """URI of the store that its tasks share."""

    @property
    def jobs(self) -> int:
        """Tasks side by side."""

    @property
    def shares_disk(self) -> bool:
        """Whether its tasks see the files of this machine."""

    def backend(self, record: Run) -> Backend:
        """Where the run's jobs go."""

    def spec(self, task: Task) -> JobSpec:
        """The task's job."""

    @property
    def grace_s(self) -> float:
        """What a stopped training has to save its state."""


@dataclass(frozen=True)
class Here:
    """This machine: tasks side by side, and processes of one training."""

    store: str
    jobs: int
    processes: int

    @classmethod
    def detect(cls, store: str, jobs: int | None, processes: int | None) -> Here:
        """What the user said, else what fits: on GPUs one training over all of them, on a CPU a job for each core, at most four."""
        gpus = _gpus()
        return cls(store, jobs or (1 if gpus else min(_cores(), 4)), processes or max(gpus, 1))

    @property
    def shares_disk(self) -> bool:
        return True

    def backend(self, record: Run) -> Backend:
        return LocalBackend(lambda spec: record.log_path(spec.task), max(1, _cores() // self.jobs), forking=not _gpus())

    def spec(self, task: Task) -> JobSpec:
        return spec_of(task, self.store, processes=self.processes if STAGES[task.stage].splits_work else 1)

    @property
    def grace_s(self) -> float:
        return GRACE_S


@dataclass(frozen=True)
class OnCluster:
    """A cluster whose jobs this machine starts and follows."""

    profile: Profile

    @property
    def store(self) -> str:
        return self.profile.store.uri

    @property
    def jobs(self) -> int:
        return self.profile.jobs

    @property
    def shares_disk(self) -> bool:
        return False

    def backend(self, record: Run) -> Backend:
        from components.launcher.cluster import Cluster  # the client of Kubernetes is slow to import
        from components.launcher.cluster_backend import ClusterBackend

        return ClusterBackend(self.profile, Cluster.connect(self.profile), record)

    def spec(self, task: Task) -> JobSpec:
        return cluster_spec(task, self.store, self.profile)

    @property
    def grace_s(self) -> float:
        return float(self.profile.grace_s)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """GPUs that a process of ours would see, without loading torch here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not any(found.exists() for found in (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/dxg"))):
        return 0  # whatever a scheduler's variable says
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").exists() else 0
