"""Processes, told apart from every other one on any machine, now or later."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Process:
    """A process; empty strings where the system does not say."""

    host: str
    boot: str
    namespace: str  # of process numbers: two containers of one machine have processes with the same number
    pid: int
    begun: str

    @classmethod
    def current(cls) -> Self:
        return cls(*_machine(), os.getpid(), _begun(os.getpid()) or "")

    @property
    def gone(self) -> bool:
        """Whether it certainly runs no more; False where this process cannot know."""
        here = (self.host, self.boot, self.namespace) == _machine()
        return here and bool(self.boot and self.begun) and _begun(self.pid) != self.begun


def tag() -> str:
    """This process in a few characters that a file's name can hold."""
    return f"{_machine_tag()}-{os.getpid()}-{_begun(os.getpid()) or 0}"


def is_gone(tag: str) -> bool | None:
    """Whether the process of that tag certainly runs no more, or certainly does; None where this process cannot know."""
    machine, _, rest = tag.partition("-")
    pid, _, begun = rest.partition("-")
    if machine != _machine_tag() or not _machine()[1] or not pid.isdecimal() or begun in ("", "0"):
        return None
    return _begun(int(pid)) != begun


@cache
def _machine() -> tuple[str, str, str]:
    """Host, boot and namespace of process numbers."""
    try:
        return (
            socket.gethostname(),
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip(),
            os.readlink("/proc/self/ns/pid"),
        )
    except OSError:
        return socket.gethostname(), "", ""


@cache
def _machine_tag() -> str:
    return hashlib.sha256("\n".join(_machine()).encode()).hexdigest()[:12]


def _begun(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is none, or only a dead one nobody has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
