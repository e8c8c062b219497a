"""A process's heartbeat: a file, named by `EDM2_BEAT`, in which a loop of steps shows its supervisor that it is alive."""

import json
import os
import time
from collections import deque
from pathlib import Path

KNOWN = 3  # the fewest intervals between steps from which to know how long a step takes
EVERY_S = 0.5  # the least time between two writes of the file


class Heartbeat:
    """The heartbeat of a loop of steps. Processes that train together stop together, so one that hangs has to be found."""

    def __init__(self) -> None:
        file = os.environ.get("EDM2_BEAT")
        self._file = Path(file) if file else None
        self._intervals: deque[float] = deque(maxlen=100)
        self._last: float | None = None
        self._written = 0.0

    def step(self) -> None:
        """Say that a step is done and another one follows."""
        if self._file is None:
            return
        now = time.monotonic()
        if self._last is not None:
            self._intervals.append(now - self._last)
        self._last = now
        if len(self._intervals) >= KNOWN and now - self._written > EVERY_S:
            self._written = now
            self._file.write_text(json.dumps([now, max(self._intervals)]), encoding="utf-8")

    def within(self, seconds: float) -> None:
        """Say that what follows takes at most so many seconds. The next pause ends that."""
        if self._file is not None:
            self._file.write_text(json.dumps([time.monotonic(), seconds]), encoding="utf-8")

    def pause(self) -> None:
        """Say that no step follows for now. Until the next step, silence means nothing."""
        if self._file is not None:
            self._last, self._written = None, 0.0
            self._file.write_text("", encoding="utf-8")


def silence(file: Path) -> float:
    """Seconds that a process has been silent for longer than its longest step; 0 while it is in no loop of steps."""
    try:
        last, longest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    return max(0.0, time.monotonic() - float(last) - float(longest))
