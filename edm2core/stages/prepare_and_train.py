"""Trains on data that it prepares first where they are not in the store: a job that needs nobody to plan around it.

`torchrun -m edm2core.stages.prepare_and_train TASK --store URI`, with the task that prepares the data as JSON in `EDM2_PREPARE`.
"""

from __future__ import annotations

import json
import os
import sys
import time

from edm2core.plan import Task
from edm2core.stages import prepare, signals, train
from edm2core.stages.main import make, serve
from edm2core.store.base import Store
from edm2core.store.leases import Busy
from edm2core.store.results import load

LOOK_S = 1.0


def work(task: Task, store: Store) -> None:
    """Rank 0 prepares, unless somebody else does; then all ranks train."""
    data = Task.from_json(json.loads(os.environ["EDM2_PREPARE"]))
    first, said = os.environ.get("RANK", "0") == "0", ""
    while load(store, data.ref) is None:
        signals.stop_if_asked()
        try:
            if first:
                make(data, store, prepare.run)
                continue
        except Busy as busy:
            if said != (said := str(busy)):
                sys.stdout.write(f"{said}\n")
        time.sleep(LOOK_S)
    train.work(task, store)


if __name__ == "__main__":
    sys.exit(serve(work, "train"))
