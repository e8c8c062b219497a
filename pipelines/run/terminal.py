"""The console of a command that runs tasks: it outlives the terminal that it was started in."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO

from rich.console import Console


def open_console() -> Console:
    """A console on standard output."""
    return Console(file=Terminal(sys.stdout) if sys.stdout.isatty() else None, highlight=False)  # type: ignore[arg-type]


class Terminal:
    """A terminal that may be closed. A write can then fail before SIGHUP is handled, which stops the work and saves it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of any stream; what a closed terminal does not take is lost, and so is all that follows."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._must_be_closed(error)
            return len(text)

    def flush(self) -> None:
        """As of any stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._must_be_closed(error)

    def _must_be_closed(self, error: OSError) -> None:
        if error.errno != errno.EIO:
            raise error
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # What is still buffered would fail at the end.
