"""Remembers signals to stop, which are obeyed at safe points. It also makes a process end with its parent."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from edm2core.errors import Interrupted

_asked: list[int] = []


def to_stop() -> tuple[signal.Signals, ...]:
    """The signals that ask a process to save and stop. A closed terminal sends SIGHUP, which nohup makes a process ignore."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A context in which the signals to stop call `handler`. Only the main thread may enter it."""
    before = {number: signal.signal(number, handler) for number in to_stop()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def install() -> None:
    """Remember signals to stop instead of dying from them. Call it before anything slow."""
    for number in to_stop():
        signal.signal(number, lambda number, _frame: _asked.append(number))


def asked() -> bool:
    """Whether this process has been asked to stop."""
    return bool(_asked)


def stop_if_asked() -> None:
    """Raise Interrupted if this process has been asked to stop."""
    if _asked:
        raise Interrupted(f"Stopped by {signal.Signals(_asked[0]).name}; what is finished is saved.", do_next="Run it again to go on.")


def die_with_parent() -> None:
    """Kill this process group as soon as its parent has ended, if `EDM2_DIE_WITH_PARENT` is that parent's process number."""
    parent = int(os.environ.get("EDM2_DIE_WITH_PARENT", "0"))
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
