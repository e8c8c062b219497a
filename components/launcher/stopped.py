"""Which processes a signal (SIGSTOP) has stopped. They neither go on nor end by themselves."""

from __future__ import annotations

import time
from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process. A debugger does not count; False on a system that does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


class Stopped:
    """For how long processes have been stopped."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def seconds(self, pid: int) -> float:
        """Seconds since the process was first seen to be stopped; 0 while it runs."""
        if not is_stopped(pid):
            self._since.pop(pid, None)
            return 0.0
        now = time.monotonic()
        return now - self._since.setdefault(pid, now)
