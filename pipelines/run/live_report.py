"""Writes the report of a run again while it goes on, soon after tasks end, but never so often that it slows the run."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from edm2core.errors import EdmError

LEAST_S, MOST_S = 15.0, 300.0  # the least time between two reports, and the most if there is no news
SHARE = 0.05  # the largest part of the time that writing reports may take


class LiveReport:
    """Calls `write` in a thread of its own, soon after `news`, until the `with` block ends."""

    def __init__(self, write: Callable[[], None], least_s: float = LEAST_S, most_s: float = MOST_S) -> None:
        self._write, self._least_s, self._most_s = write, least_s, most_s
        self._news, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="report", daemon=True)

    def news(self) -> None:
        """Say that something has changed that a reader would want to see."""
        self._news.set()

    def __enter__(self) -> Self:
        self.news()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._news.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._ended.is_set():
            self._news.clear()
            begun = time.monotonic()
            with suppress(EdmError, OSError):  # the run matters more; if the last report fails too, that is an error
                self._write()
            self._ended.wait(max(self._least_s, (time.monotonic() - begun) / SHARE))
            self._news.wait(self._most_s)
