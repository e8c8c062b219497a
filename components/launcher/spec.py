"""A job as plain data: what runs, and on how many nodes and processes. A backend decides where it runs."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, Protocol

from edm2core.plan.manifest import Ref
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task, trajectory_ref


@dataclass(frozen=True)
class JobSpec:
    """Processes that work together on one task, or on one trajectory, which has several snapshot tasks."""

    name: str  # the same for the same work, so that a second start adopts the job; a DNS-1035 label
    module: str
    task: Task
    store: str
    nodes: int = 1
    processes: int = 1  # per node
    wait: bool = False  # whether to wait until other jobs have made the task's inputs

    @property
    def arguments(self) -> list[str]:
        task = json.dumps(self.task.to_json(), separators=(",", ":"))
        return ["-m", self.module, task, "--store", self.store, *(["--wait"] if self.wait else [])]


@dataclass(frozen=True)
class Status:
    """Where a job stands. `reason` says in one line why it waits, failed or was restarted; `code` is its exit code, if it has ended."""

    state: Literal["absent", "queued", "running", "done", "failed"]
    reason: str = ""
    code: int | None = None
    restarts: int = 0  # how often the backend itself has restarted the job's processes
    lost: bool = False  # whether the last restart came because the cluster took processes away, and not because one failed

    @property
    def over(self) -> bool:
        return self.state in ("absent", "done", "failed")


class Backend(Protocol):
    """A place where jobs run."""

    def start(self, spec: JobSpec) -> None:
        """Start the job, or adopt the job of that name."""

    def poll(self, name: str) -> Status:
        """Where the job stands now."""

    def logs(self, name: str) -> list[str]:
        """The lines that the job has printed since the last call."""

    def stop(self, name: str, grace_s: float) -> None:
        """Tell the job to save and end, end it after `grace_s` seconds in any case, and wait for its end."""

    def stop_all(self, grace_s: float) -> None:
        """Stop every job, all at once."""

    def kill_all(self) -> None:
        """End at once, without saving, the jobs that cannot outlive this process."""

    def close(self, grace_s: float) -> None:
        """Let go of all jobs: those that cannot outlive this process are stopped, others go on."""


def work_ref(task: Task) -> Ref:
    """What a job works on, and holds the lease on: for a snapshot its trajectory, else the task itself."""
    return trajectory_ref(task) if task.stage == "snapshot" else task.ref


def job_name(task: Task, store: str) -> str:
    """The name of the job that makes this task's result in that store. All snapshots of a trajectory share one job."""
    ref = work_ref(task)
    where = hashlib.sha256(store.partition("://")[2].rstrip("/").encode() or store.encode()).hexdigest()[:6]
    return f"edm2-{ref.stage}-{ref.key}-{where}"


def spec_of(task: Task, store: str, *, nodes: int = 1, processes: int = 1) -> JobSpec:
    """The job that makes this task's result."""
    return JobSpec(job_name(task, store), STAGES[task.stage].module, task, store, nodes, processes)
