"""One task on this machine, outside of any experiment."""

from __future__ import annotations

import shlex
import sys
import threading
from typing import Any

from rich.console import Console

from components.execute import execute
from edm2core.manifest import Manifest
from edm2core.plan import Task
from edm2core.store.base import Store
from edm2core.store.runs import Run, record
from pipelines.places import GRACE_S, Here


def do_task(task: Task, store: Store, name: str, console: Console) -> Manifest:
    """Do the task, or find it done. Its result stands in a run of its own, so that gc keeps it.

    Raises EdmError when the task failed.
    """
    run = Run(f"{name}-{task.key[:6]}", store)
    record(run, name, f"# {shlex.join(['edm2', *sys.argv[1:]])}\n", [task.to_json()])
    place = Here(store.uri, 1, 1)
    backend = place.backend(run)

    def show(_task: Task, event: dict[str, Any]) -> None:
        if event["kind"] in ("warning", "waiting"):
            console.print(event["message"], markup=False, soft_wrap=True)

    try:
        return execute(task, store, backend, place.spec(task), run=run.id, show=show, stop=threading.Event())[0]
    finally:
        backend.stop_all(GRACE_S)
        run.close()
