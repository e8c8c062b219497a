"""Records each rendezvous of a training's processes beside its states, so that a loop of crashes ends however many pods it wears out."""

import json
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

from edm2core.errors import EdmError
from edm2core.plan.manifest import Ref
from edm2core.store.base import Store
from edm2core.store.scratch import STATE_SLOTS, Scratch

PIECE = "rendezvous"
MOST = 12  # restarts in a row without a newer state; whoever follows the job knows why pods ended, and may give up earlier
KEPT = 100  # records, the latest


def record_rendezvous(store: Store, ref: Ref, number: int, processes: int) -> None:
    """Record that the processes of a training have met, as the holder of its lease. `number` is the lease's generation.

    A rendezvous without a newer state than at the one before is a restart. Raises EdmError after MOST of them in a row. The records then
    begin anew, so that whoever starts the training once more may try again.
    """
    scratch = Scratch(store, ref.scratch, number)
    states = [(scratch.about(slot) or {}).get("epochs") for slot in STATE_SLOTS]
    earlier = rendezvous_of(scratch)
    in_vain = len(list(takewhile(lambda record: record["states"] == states, reversed(earlier))))
    records = [*earlier, {"number": number, "processes": processes, "time": round(time.time(), 3), "states": states}]
    gives_up = in_vain > MOST
    scratch.put(PIECE, json.dumps([] if gives_up else records[-KEPT:]).encode())
    if gives_up:
        newest = max((epochs for epochs in states if epochs is not None), default=None)
        where = "from its beginning" if newest is None else f"from its state at epoch {newest:.4g}"
        raise EdmError(
            f"The training began {in_vain + 1} times {where} without saving a newer one.",
            where=f"{store.uri}/{ref.scratch}",
            do_next="The logs of its pods say what ended them each time. Once that is mended, start it again.",
        )


def rendezvous_of(scratch: Scratch) -> list[dict[str, Any]]:
    """The records of a training's rendezvous, the earliest first; empty if there are none, or none that can be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = scratch.get(PIECE, Path(folder))
        return list(json.loads(path.read_bytes())) if path else []
