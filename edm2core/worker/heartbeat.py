"""Signs of life for whoever watches this process, in the file that `EDM2_BEAT` names: silent for longer than usual, it hangs."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path

KNOWN = 3  # intervals between steps, before their length says anything
EVERY_S = 0.5


class Beat:
    """Written by a loop whose steps must follow each other: with other processes in it, one that stops stops all."""

    def __init__(self) -> None:
        file = os.environ.get("EDM2_BEAT")
        self._file = Path(file) if file else None
        self._intervals: deque[float] = deque(maxlen=100)
        self._last: float | None = None
        self._written = 0.0

    def step(self) -> None:
        """A step is done, and another one follows."""
        if self._file is None:
            return
        now = time.monotonic()
        if self._last is not None:
            self._intervals.append(now - self._last)
        self._last = now
        if len(self._intervals) >= KNOWN and now - self._written > EVERY_S:
            self._written = now
            self._file.write_text(json.dumps([now, max(self._intervals)]), encoding="utf-8")

    def pause(self) -> None:
        """What follows is no step, and takes as long as it takes."""
        if self._file is not None:
            self._last, self._written = None, 0.0
            self._file.write_text("", encoding="utf-8")


def silence(file: Path) -> float:
    """Seconds that a process has been silent beyond its usual step; 0 if it is not in its steps."""
    try:
        last, usual = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    return max(0.0, time.monotonic() - float(last) - float(usual))
