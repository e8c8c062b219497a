"""The component of every stage: it executes one task of a recorded plan, and fills a small artifact that says where the result is.

A component is a plain function. Kubeflow Pipelines sees its signature, and components/kubeflow.py calls it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components.execute import Show, TaskFailedError, execute
from components.launcher.job import cluster_spec
from components.launcher.local import LocalBackend
from components.launcher.profile import Profile
from components.launcher.spec import Backend, JobSpec, spec_of
from components.record.plan_parameter import read, wisher
from edm2core.config.validate import other_version
from edm2core.errors import EdmError
from edm2core.events import numbers, percent
from edm2core.plan.manifest import Manifest
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from edm2core.provenance.made_by import made_by
from edm2core.store import open_store
from edm2core.store.base import Store
from edm2core.store.runs import Run
from edm2core.worker.signals import handled_by

if TYPE_CHECKING:
    from components.launcher.cluster import Cluster

GRACE_S = 60.0  # to save a state, as when a node is drained; Kubeflow's terminate allows less
QUIET_S = 10.0  # between two progress lines


@dataclass(frozen=True)
class Done:
    """A finished task, for its component's viewer."""

    manifest: Manifest
    store: Store

    def read(self, name: str) -> bytes:
        """One of the result's files, which has to fit in memory."""
        return self.store.read(self.manifest.path(name))


def stage_component(name: str, show: Callable[..., None] | None = None) -> Callable[..., None]:
    """The component of a stage: a function of `task`, `of` and `plan` (see `work`), and of the outputs that it fills.

    The outputs are the stage's artifact, and the parameters of its viewer `show` after the first.
    """
    stage = STAGES[name]
    shown = list(inspect.signature(show).parameters.values())[1:] if show else []
    outputs = {stage.output: f"Output[{stage.kind}]", **{output.name: str(output.annotation) for output in shown}}

    def component(task: str, of: str, plan: str, **artifacts: Any) -> None:
        done = work(task, of, plan, artifacts[stage.output], metrics=stage.kind == "Metrics")
        if show:
            show(done, **{output.name: artifacts[output.name] for output in shown})

    annotations = {**dict.fromkeys(("task", "of", "plan"), "str"), **outputs}
    parameters = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for each, kind in annotations.items()]
    component.__doc__, component.__annotations__ = stage.does, {**annotations, "return": None}
    component.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return component


def work(task: str, of: str, plan: str, artifact: Any, *, metrics: bool = False) -> Done:
    """Execute the task `task` of the trajectory `of`, and write into its artifact where the result is, as text and as metadata.

    `plan` is the recorded plan's address. An artifact of `metrics` gets no metadata, since Kubeflow would show it among the metrics. If the
    task fails, this exits with the error in words, without a traceback: Kubeflow shows a component's output as it is.
    """
    try:
        recorded = read(plan)
        profile = Profile.loads(recorded.profile) if recorded.profile else None
        done = _work(recorded.task(of, task), recorded.run, recorded.store, profile)
    except TaskFailedError as error:
        sys.exit("\n".join([str(error), *(["Last lines:", *error.lines] if error.lines else [])]))
    except EdmError as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit(str(other_version(error)))
    manifest, uri = done.manifest, done.store.uri
    files = [f"{name}: {record.size} bytes, sha256 {record.sha256}" for name, record in manifest.files.items()]
    where = f"{uri}/{manifest.ref.manifest} (sha256 {hashlib.sha256(manifest.dumps()).hexdigest()})"
    Path(artifact.path).write_text("\n".join([manifest.title, where, *files, ""]), encoding="utf-8")
    if not metrics:
        facts = {name: manifest.metadata.get(name) for name in ("recipe", "seed", "epoch")}
        artifact.metadata["location"] = f"{uri}/{manifest.ref.folder}/{manifest.attempt}"
        artifact.metadata.update({name: value for name, value in facts.items() if value is not None})  # Kubeflow refuses None
    return done


def _work(task: Task, run: str, store_uri: str, profile: Profile | None) -> Done:
    store = open_store(store_uri)
    record = Run(run, store)
    say = _Speaker(record)
    backend, task, spec = _place(task, store_uri, record, profile, say.line)
    try:
        manifest, there = _follow(task, store, backend, spec, wisher(run), say.event)
    except EdmError as error:
        say.ended("failed" if isinstance(error, TaskFailedError) else "interrupted", task, str(error))
        raise
    else:
        for line in made_by([manifest] * there).lines:
            say.line(line)
        say.ended("reused" if there else "done", task, "")
    finally:
        backend.close(GRACE_S)  # a training commits its snapshot before it has saved its state
        record.close()
    return Done(manifest, store)


def _place(task: Task, store_uri: str, record: Run, profile: Profile | None, say: Callable[[str], None]) -> tuple[Backend, Task, JobSpec]:
    """Where the task is done: in this pod, or by a job of this pod's cluster, which is deleted with the run's Workflow if there is one."""
    if profile is not None and not profile.in_task_pod(task.stage):
        from components.launcher.cluster import Cluster  # the client of Kubernetes is slow to import
        from components.launcher.cluster_backend import ClusterBackend

        cluster = Cluster.connect(profile)
        owner, why = workflow_of(cluster)
        say(f"jobs belong to the Workflow {owner['name']}" if owner else f"jobs belong to nobody, since {why}")
        return ClusterBackend(profile, cluster, record, owner), task, cluster_spec(task, store_uri, profile)
    if task.stage == "snapshot":  # this pod ends with the task, so training must not run on towards later snapshots
        task = replace(task, wanted=(task.settings["epoch"],))
    processes = profile.resources_of(task.stage).processes_per_node if profile else 1
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return LocalBackend(lambda spec: record.log_path(spec.task), threads), task, spec_of(task, store_uri, processes=processes)


def workflow_of(cluster: Cluster) -> tuple[dict[str, Any] | None, str]:
    """An ownerReference to the Workflow of this process's pod; or None, and why there is none.

    Jobs belong to the Workflow and not to the pod: they are deleted with their owner, and the successor of a lost pod has to adopt them.
    """
    pod = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
    if not pod:
        return None, "this pod's name is unknown"
    try:
        own = cluster.pod(pod)
    except EdmError as error:
        return None, f"this pod cannot be read: {error.what}"
    if own is None or own["metadata"]["uid"] != os.environ.get("KFP_POD_UID", own["metadata"]["uid"]):
        return None, f"this pod is not in namespace {cluster.namespace}"  # an owner there would count as deleted
    for owner in own["metadata"].get("ownerReferences", []):
        if owner["kind"] == "Workflow" and owner["apiVersion"].startswith("argoproj.io/"):
            return {name: owner[name] for name in ("apiVersion", "kind", "name", "uid")}, ""
    return None, "this pod belongs to no Workflow"


def _follow(task: Task, store: Store, backend: Backend, spec: JobSpec, who: str, show: Show) -> tuple[Manifest, bool]:
    """Call execute() in another thread. The main thread only waits and holds no lock, so that it handles a signal at once."""
    stop = threading.Event()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            backend.stop(spec.name, GRACE_S)

    with handled_by(terminate), ThreadPoolExecutor(1, "execute") as pool:
        return pool.submit(execute, task, store, backend, spec, run=who, show=show, stop=stop).result()


class _Speaker:
    """Prints a job's lines and events for Kubeflow's log view, and adds the events other than progress to the run's record."""

    def __init__(self, record: Run) -> None:
        self._record = record
        self._said = -QUIET_S

    def event(self, task: Task, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "line":
            self.line(str(event["line"]))
        elif kind == "progress":
            if time.monotonic() - self._said >= QUIET_S:
                self._said = time.monotonic()
                self.line(f"{percent(event)} {numbers(event)}")
        else:
            self._record.log_of(task, event)
            words = event.get("message") or event.get("what")
            self.line(f"{kind}: {words}" if words else kind)

    def ended(self, state: str, task: Task, error: str) -> None:
        self._record.log_of(task, {"kind": state, "error": error})
        self.line(f"{state}: {task.title}")

    def line(self, line: str) -> None:
        with suppress(OSError):  # nobody may read any more once the pod is told to end
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
