"""Reads the output of all pods of a job, each line once, whatever breaks in between."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import urllib3

from components.launcher.cluster import Cluster, ClusterError
from components.launcher.job_kinds import JobKind
from components.launcher.log_store import Line, LogRecord
from edm2core.events import line as event_line
from edm2core.events import parse

RETRY_S = 0.5
FLUSH_S = 5.0
UID = 8  # characters of a pod's uid: enough to tell it from others of its name


@dataclass
class _Reader:
    """How far one pod's output has been read."""

    name: str
    uid: str
    pod: str  # as in Line
    last: str = ""  # time of the last line
    count: int = 0  # how many lines of that time have been read

    def new(self, stamped: Iterable[str]) -> Iterator[Line]:
        """The lines that have not been read before. `stamped` are lines that begin with their times, the earliest first."""
        seen = 0  # how many lines of the time `last` have come so far
        for line in stamped:
            stamp, _, text = line.partition(" ")
            stamp = _padded(stamp)
            if stamp < self.last:
                continue
            seen = seen + 1 if stamp == self.last else 1
            if stamp == self.last and seen <= self.count:
                continue
            self.last, self.count = stamp, seen
            yield Line(stamp, self.pod, text)


@dataclass
class PodLogs:
    """Reads every pod of a job from its beginning, hands the lines out, and keeps them in `record`.

    With `ranks`, the job has several processes, whose lines already say which rank printed them. Without, lines get the pod's index.
    """

    cluster: Cluster
    kind: JobKind
    record: LogRecord
    ranks: bool = False
    refused: ClusterError | None = None  # the API server's answer if the right to read logs is missing
    _readers: dict[str, threading.Thread] = field(default_factory=dict)  # by the pod's uid
    _lines: deque[Line] = field(default_factory=deque)
    closed: threading.Event = field(default_factory=threading.Event)
    _ends: dict[str, tuple[str, int]] | None = None  # `record.ends()` as it was at the beginning
    _said: str = ""

    def watch(self, pods: list[dict[str, Any]]) -> None:
        """Begin to read the pods that are not being read yet."""
        if self._ends is None:
            self._ends = self.record.ends()
            threading.Thread(target=self._flush, name="keep logs", daemon=True).start()
        for pod in pods:
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            if uid not in self._readers and self._in_state(pod, "running", "terminated"):
                of = f"{name}/{uid[:UID]}"
                reader = _Reader(name, uid, of, *self._ends.get(of, ("", 0)))
                self._readers[uid] = threading.Thread(target=self._read, args=(reader,), name=f"log {name}", daemon=True)
                self._readers[uid].start()

    def take(self) -> list[str]:
        """The new lines. If lines cannot be kept, an event among them says why."""
        lines = []
        if self.record.trouble != self._said:
            self._said = self.record.trouble
            lines += [event_line("warning", message=self._said)] if self._said else []
        while self._lines:
            line = self._lines.popleft()
            whose = "" if self.ranks or parse(line.text) else f"[pod {self.kind.pod_index(line.pod.partition('/')[0])}] "
            lines.append(whose + line.text)
        return lines

    def drain(self, seconds: float) -> None:
        """Wait until the output of ended pods has been read, for so many seconds at most."""
        end = time.monotonic() + seconds
        for reader in list(self._readers.values()):
            reader.join(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Read no more, and keep what was read."""
        self.closed.set()
        self.record.flush()

    def _flush(self) -> None:
        while not self.closed.wait(FLUSH_S):
            self.record.flush()

    def _read(self, reader: _Reader) -> None:
        """Read a pod until its container has ended and all of its output is read, or the pod is gone."""
        while not self.closed.is_set():
            try:
                ended = self._ended(reader)  # asked before reading, so that an ended pod's output is read to its end
                if ended is not None:
                    self._stream(reader, follow=not ended)
                if ended is not False:
                    return
            except ClusterError as error:
                if error.status in (401, 403):
                    self.refused = error  # any other error passes, or means that the pod is gone
            except (urllib3.exceptions.HTTPError, OSError):
                pass  # the connection broke; the next request begins where it did
            self.closed.wait(RETRY_S)

    def _ended(self, reader: _Reader) -> bool | None:
        """Whether the pod's container has ended; None if the pod is gone."""
        pod = self.cluster.pod(reader.name)
        return None if pod is None or pod["metadata"]["uid"] != reader.uid else self._in_state(pod, "terminated")

    def _stream(self, reader: _Reader, follow: bool) -> None:
        response = self.cluster.log(reader.name, self.kind.container, f"{reader.last[:19]}Z" if reader.last else "", follow)
        with contextlib.closing(response):
            if self._ended(reader) is None:  # by now the name may belong to another pod
                return
            # A line that a broken connection cuts off is not among these: it comes whole with the next request.
            for line in reader.new(data.decode(errors="replace").rstrip("\r\n") for data in response):
                self._lines.append(line)
                self.record.new.append(line)

    def _in_state(self, pod: dict[str, Any], *states: str) -> bool:
        """Whether the job's container in the pod is in one of these states."""
        statuses = pod["status"].get("containerStatuses") or []
        return any(state in status.get("state", {}) for status in statuses if status.get("name") == self.kind.container for state in states)


def _padded(stamp: str) -> str:
    """The time with nine digits of a second, so that times compare as text."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"
