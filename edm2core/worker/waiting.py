"""Waiting for a task's inputs. `kubectl apply` starts the job that makes them at the same time, and nobody plans around both."""

from __future__ import annotations

import time

from edm2core.errors import EdmError
from edm2core.events import emit
from edm2core.plan.tasks import Task
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.worker import signals

LOOK_S = 1.0
PATIENCE_S = 2 * 3600  # Published archives download within minutes.


def wait_for_inputs(task: Task, store: Store) -> None:
    """Return when all of the task's inputs are in the store. Raises EdmError after two hours, Interrupted when asked to stop."""
    end, said, missing = time.monotonic() + PATIENCE_S, False, list(task.inputs.values())
    while missing := [ref for ref in missing if load(store, ref) is None]:
        if not said:
            emit("waiting", message=f"for {missing[0]}, which another job makes")
            said = True
        if time.monotonic() > end:
            raise EdmError(
                f"{missing[0]} is still not in the store after {PATIENCE_S // 3600} hours of waiting.",
                where=store.uri,
                do_next="Look at the job that prepares the data: it is in the same file, and its pods' logs say what keeps it.",
            )
        signals.stop_if_asked()
        time.sleep(LOOK_S)
