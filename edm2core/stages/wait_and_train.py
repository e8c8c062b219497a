"""Trains as soon as its data are in the store: for a job beside the one that prepares them, with nobody to plan around both.

`torchrun -m edm2core.stages.wait_and_train TASK --store URI`
"""

from __future__ import annotations

import sys
import time

from edm2core.errors import EdmError
from edm2core.events import emit
from edm2core.plan.tasks import Task
from edm2core.stages import train
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.worker import signals
from edm2core.worker.main import serve

LOOK_S = 1.0
PATIENCE_S = 2 * 3600  # published archives are downloaded in minutes


def work(task: Task, store: Store) -> None:
    """Wait for what the task stands on, saying so, then train; raises EdmError after two hours, Interrupted when asked to stop."""
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
    train.work(task, store)


if __name__ == "__main__":
    sys.exit(serve(work, "train"))
