"""Identifies processes: no two have the same identity, on whichever machine and at whatever time they run."""

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Process:
    """A process; a field is an empty string where the system does not say."""

    host: str
    boot: str
    namespace: str  # of process numbers, since two containers of one machine may use the same ones
    pid: int
    begun: str  # when it began, in the kernel's ticks

    @classmethod
    def current(cls) -> Self:
        return cls(*_machine(), os.getpid(), _begun(os.getpid()) or "")

    @property
    def machine(self) -> str:
        """12 hex digits that stand for the host, its boot and the namespace."""
        return hashlib.sha256(f"{self.host}\n{self.boot}\n{self.namespace}".encode()).hexdigest()[:12]

    @property
    def tag(self) -> str:
        """The process in a few characters that a file's name can hold; `is_gone` reads them."""
        return f"{self.machine}-{self.pid}-{self.begun or 0}"

    @property
    def gone(self) -> bool:
        """Whether it certainly runs no more; False where this process cannot know."""
        return is_gone(self.tag) is True


def is_gone(tag: str) -> bool | None:
    """Whether the process of a tag certainly runs no more, or certainly does; None where this process cannot know."""
    machine, _, process = tag.partition("-")
    pid, _, begun = process.partition("-")
    here = Process.current()
    if machine != here.machine or not here.boot or not pid.isdecimal() or begun in ("", "0"):
        return None
    return _begun(int(pid)) != begun


@cache
def _machine() -> tuple[str, str, str]:
    """Host, boot and namespace of process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return socket.gethostname(), boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname(), "", ""


def _begun(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is no such process, or only a dead one that nobody has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
