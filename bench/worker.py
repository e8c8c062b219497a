"""A process that makes one thing to time and runs it whenever a line on stdin says so: `python -m bench.worker MODULE:FUNCTION ARGUMENTS`.

Plain and product have a process each, so that each has its own allocator, caches and settings, as it would have in use. What it
writes lies in TMPDIR, which its starter removes; it ends when its stdin does, so that it outlives no starter.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Work = Callable[[], dict[str, float] | None]
"""Does the work once, to its end; what it returns is reported beside the time, `seconds` in place of the time taken here."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the work prints goes to stderr
    module, name = sys.argv[1].split(":")
    work: Work = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    answers.write(json.dumps({"ready": True}) + "\n")
    for _ in sys.stdin:
        answers.write(json.dumps(_timed(work)) + "\n")


def _timed(work: Work) -> dict[str, Any]:
    before, cpu = time.perf_counter(), time.process_time()
    facts = work() or {}
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak, **facts}


if __name__ == "__main__":
    main()
