"""The console of commands that run tasks, on a real pseudo-terminal."""

import os
import pty
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.run.terminal import Terminal, open_console


def test_what_is_printed_to_a_closed_terminal_is_lost_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, end = pty.openpty()
    with os.fdopen(end, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        console = open_console()
        assert console.is_terminal
        console.print("before")
        assert b"before" in os.read(terminal, 1000)
        os.close(terminal)
        with pytest.raises(OSError, match="Input/output"):
            os.write(end, b"to the terminal itself")
        console.print("after")


def test_a_full_disk_is_an_error_as_ever() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space"), full.open("w", buffering=1) as stream:
        Console(file=Terminal(stream)).print("words")  # type: ignore[arg-type]
