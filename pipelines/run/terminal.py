"""The console of a command that runs tasks: it outlives the terminal that it was started in."""

import errno
import os
import sys
from typing import Any, TextIO

from rich.console import Console


def open_console() -> Console:
    """A console on standard output that prints text as it is: without markup, without breaking lines."""
    terminal: Any = Terminal(sys.stdout) if sys.stdout.isatty() else None
    return Console(file=terminal, highlight=False, markup=False, soft_wrap=True)


def discard_output(*descriptors: int) -> None:
    """Send what is written to these file descriptors nowhere, so that a write to a closed terminal or pipe is no error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)


class Terminal:
    """A terminal that may be closed. A write can then fail before the handler of SIGHUP has stopped and saved the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the terminal; once it is closed, text is lost."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._must_be_closed(error)
            return len(text)

    def flush(self) -> None:
        """Flush the terminal; once it is closed, text is lost."""
        try:
            self._stream.flush()
        except OSError as error:
            self._must_be_closed(error)

    def _must_be_closed(self, error: OSError) -> None:
        if error.errno != errno.EIO:
            raise error
        discard_output(self._stream.fileno())  # what is still buffered would fail at the end
