"""SIGTERM, SIGINT and SIGHUP as a question asked at safe points, and an end with the parent process."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from edm2core.errors import Interrupted

_asked: list[int] = []


def to_stop() -> tuple[signal.Signals, ...]:
    """The signals that ask a process to save and stop: SIGHUP, of a terminal that is closed, only where nohup has not said to ignore it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


def install() -> None:
    """Remember the first signal to stop instead of dying from it; to be called before anything slow."""

    def remember(number: int, _frame: FrameType | None) -> None:
        _asked.append(number)

    for number in to_stop():
        signal.signal(number, remember)


def asked() -> bool:
    """Whether this process has been asked to stop."""
    return bool(_asked)


def stop_if_asked() -> None:
    """Raise Interrupted if this process has been asked to stop."""
    if _asked:
        raise Interrupted(f"Stopped by {signal.Signals(_asked[0]).name}; what is finished is saved.", do_next="Run it again to go on.")


def die_with_parent() -> None:
    """End this process group at once when its parent is gone, if `EDM2_DIE_WITH_PARENT` names that parent."""
    parent = int(os.environ.get("EDM2_DIE_WITH_PARENT", "0"))
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
