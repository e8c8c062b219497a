"""Writes the report of a run again while it goes on, soon after tasks end, but never so often that it slows the run."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from edm2core.errors import EdmError

LEAST_S, MOST_S = 15.0, 300.0  # the least time between two reports, and the most if there is no news
SHARE = 0.05  # the largest part of the time that writing reports may take


@contextmanager
def live_report(write: Callable[[], None], least_s: float = LEAST_S, most_s: float = MOST_S) -> Iterator[Callable[[], None]]:
    """Calls `write` in a thread of its own until the `with` block ends. What this gives is to be called when there is news to write."""
    news, ended = threading.Event(), threading.Event()

    def follow() -> None:
        while not ended.is_set():
            news.clear()
            begun = time.monotonic()
            with suppress(EdmError, OSError):  # the run matters more; if the last report fails too, that is an error
                write()
            ended.wait(max(least_s, (time.monotonic() - begun) / SHARE))
            news.wait(most_s)

    thread = threading.Thread(target=follow, name="report", daemon=True)
    thread.start()
    try:
        yield news.set
    finally:
        ended.set()
        news.set()
        thread.join()
