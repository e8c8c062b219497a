"""Processes that compute: their environment variables, and which of them a signal (SIGSTOP) has stopped."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

LAUNCHERS = ("PET_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_")
"""How the names of another launcher's variables begin. They would make a process wait for processes that do not belong to its job."""
ALIKE = {
    "PYTHONSAFEPATH": "1",  # import no library from the folder in which a command runs
    "PYTHONUTF8": "1",  # read paths and texts in the same way whatever the locale
}
# A training step allocates and frees tensors of the same sizes again and again. By default glibc gets each large one from the kernel, which
# clears its pages, and gives it back at once. Kept in the heap, on huge pages, such tensors cost nothing
# (docs/explanation/performance.md). Other C libraries ignore the variable.
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}


def of_one_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for processes that work together on this machine alone."""
    left_out = (*LAUNCHERS, "PYTHONWARNINGS")  # PYTHONWARNINGS can turn a library's warning into an error
    return {name: value for name, value in environ.items() if not name.startswith(left_out)} | ALIKE


def send(pid: int, number: int, to: Callable[[int, int], None] = os.kill) -> None:
    """Send a signal to a process or, by os.killpg, to its group. It may have ended."""
    with contextlib.suppress(ProcessLookupError):
        to(pid, number)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process. A stop by a debugger does not count. False on a system that does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


class Stopped:
    """Remembers since when processes have been stopped."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def seconds(self, pid: int) -> float:
        """Seconds since the process was first seen to be stopped; 0 while it runs."""
        if not is_stopped(pid):
            self._since.pop(pid, None)
            return 0.0
        now = time.monotonic()
        return now - self._since.setdefault(pid, now)
