"""The output of a cluster's jobs, kept in a run's folder of the store."""

import secrets
import threading
import time
from collections import deque
from typing import NamedTuple

from components.launcher.spec import work_ref
from edm2core.errors import EdmError
from edm2core.plan.tasks import Task
from edm2core.store.base import Store

CHUNK = 256 * 1024  # characters of log in one object of the store; the newest object is written again until it is full


def log_folder(run: str, task: Task) -> str:
    """Where a run keeps the output of a task's job."""
    return f"runs/{run}/logs/{'-'.join(work_ref(task))}/pods"


class Line(NamedTuple):
    """A line of a pod's output; `time` is the node's, in RFC 3339 with nine digits of a second."""

    time: str
    pod: str  # its name and the start of its uid, since a recreated pod may have its predecessor's name
    text: str


class LogRecord:
    """Writes a job's lines to the store, in objects that no other process writes. A later follower goes on where they end."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._prefix = f"{time.time_ns()}-{secrets.token_hex(3)}"
        self._chunk, self._number, self._written, self._writing = "", 0, True, threading.Lock()
        self.new = deque[Line]()  # lines to be written
        self.trouble = ""  # why the last attempt to write failed

    def ends(self) -> dict[str, tuple[str, int]]:
        """The time of each pod's last line in the store, and how many of its lines there have that time."""
        ends: dict[str, tuple[str, int]] = {}
        for line in read_record(self._store, self._folder):
            last, count = ends.get(line.pod, ("", 0))
            ends[line.pod] = (line.time, count + 1 if line.time == last else 1)
        return ends

    def flush(self) -> None:
        """Write the new lines. What the store does not take now is written at the next call."""
        with self._writing:
            taken = [self.new.popleft() for _ in range(len(self.new))]
            self._chunk += "".join(f"{line.time} {line.pod} {line.text}\n" for line in taken)
            self._written = self._written and not taken
            if self._written:
                return
            try:
                self._store.write(f"{self._folder}/{self._prefix}-{self._number:04d}.log", self._chunk.encode())
            except EdmError as error:
                self.trouble = f"The job's log cannot be kept; this is tried again: {error.what}"
                return
            self._written, self.trouble = True, ""
            if len(self._chunk) > CHUNK:
                self._chunk, self._number = "", self._number + 1


def read_record(store: Store, folder: str) -> list[Line]:
    """All lines of a job in the store, ordered by time, each once even if several followers have kept it."""
    texts = (text for entry in store.list(f"{folder}/") for text in store.read(entry.path).decode(errors="replace").split("\n"))
    lines = dict.fromkeys(Line(*parts) for text in texts if len(parts := text.split(" ", 2)) == 3)
    return sorted(lines, key=lambda line: line.time)
