"""Does single tasks on this machine, outside of any experiment."""

import shlex
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from components.execute import TaskFailedError, execute
from edm2core.events import percent
from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import Task
from edm2core.provenance.made_by import made_by
from edm2core.store.base import Store
from edm2core.store.runs import Run, record
from edm2core.store.summary import change
from pipelines.inputs.user_files import bring_here
from pipelines.run.console import QUIET_S
from pipelines.run.places import here


def do_task(task: Task, store: Store, name: str, console: Console) -> Manifest:
    """The result of a task, which is done unless its result is in the store. A run of its own names the task, so that gc keeps the result.

    Raises EdmError if the task failed.
    """
    return do_tasks([task], store, f"{name}-{task.key[:6]}", console)[0]


def do_tasks(tasks: Sequence[Task], store: Store, run_id: str, console: Console) -> list[Manifest]:
    """The results of tasks. Those that are not in the store are done, one after the other. The run of that id names all of the tasks."""
    run = Run(run_id, store)
    record(run, run_id, f"# {shlex.join(['edm2', *sys.argv[1:]])}\n", tasks, {})
    place = here(store.uri, 1, 1)
    bring_here(tasks, store, console.print)
    backend, said = place.backend(run), time.monotonic()

    def show(task: Task, event: dict[str, Any]) -> None:
        nonlocal said
        if event["kind"] in ("warning", "waiting"):
            console.print(event["message"])
        elif event["kind"] == "progress" and time.monotonic() - said > QUIET_S:
            said = time.monotonic()
            console.print(f"{task.title}: {percent(event)}")

    made, reused = [], []
    try:
        for task in tasks:
            manifest, there = execute(task, store, backend, place.spec(task), run=run.id, show=show, stop=threading.Event())
            made.append(manifest)
            reused += [manifest] * there
        for line in made_by(reused).lines:
            console.print(line, style="yellow")
        return made
    except TaskFailedError as error:
        run.log_of(error.task, {"kind": "failed", "error": error.what})
        change(store, run_id, states={"failed": 1})
        path = run.log_path(error.task)
        error.what, error.where = f"{error.what}{error.tail}", str(path) if path.exists() and path.stat().st_size else ""
        raise
    finally:
        backend.stop_all(place.grace_s)
        run.close()
        run.end()
