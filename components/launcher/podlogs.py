"""The output of all pods of a job, each line once, through reconnects and restarts of the follower."""

from __future__ import annotations

import re
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

RETRY_S = 1.0
FLUSH_S = 5.0
UID = 8  # characters of a pod's uid: enough to tell it from others of its name


@dataclass
class _Reader:
    """How far one pod's output has been read."""

    name: str
    pod: str  # as in Line
    last: str = ""  # time of the last line
    count: int = 0  # lines of that time
    thread: threading.Thread | None = None

    def new(self, stamped: Iterable[str]) -> Iterator[Line]:
        """The lines that have not been read before, of lines in order that each begin with their time."""
        seen = 0  # lines of the last time that were read before
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
    """Reads the output of every pod of a job from its beginning, keeps the lines, and hands them out."""

    cluster: Cluster
    kind: JobKind
    record: LogRecord | None = None
    refused: ClusterError | None = None  # the right that is missing to read logs
    _readers: dict[str, _Reader] = field(default_factory=dict)  # by uid
    _lines: deque[Line] = field(default_factory=deque)
    _stop: threading.Event = field(default_factory=threading.Event)
    _ends: dict[str, tuple[str, int]] = field(default_factory=dict)
    _said: str = ""
    _flushed: threading.Thread | None = None

    def watch(self, pods: list[dict[str, Any]]) -> None:
        """Begin to read the pods that are not being read yet."""
        if self._flushed is None:
            self._ends = self.record.ends() if self.record else {}
            self._flushed = threading.Thread(target=self._flush, name="keep logs", daemon=True)
            self._flushed.start()
        for pod in pods:
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            if uid in self._readers or not self._in_state(pod, "running", "terminated"):
                continue
            reader = _Reader(name, f"{name}/{uid[:UID]}")
            reader.last, reader.count = self._ends.get(reader.pod, ("", 0))
            reader.thread = threading.Thread(target=self._read, args=(reader, uid), name=f"log {name}", daemon=True)
            self._readers[uid] = reader
            reader.thread.start()

    def take(self) -> list[str]:
        """New lines, each marked with its rank, or with its pod if it names no rank; and, as an event, why lines cannot be kept."""
        lines = []
        if self.record is not None and self.record.trouble != self._said:
            self._said = self.record.trouble
            lines += [event_line("warning", message=self._said)] if self._said else []
        while self._lines:
            line = self._lines.popleft()
            lines.append(line.text if re.match(r"\[rank \d+\] |@edm2 ", line.text) else f"[pod {self._index(line)}] {line.text}")
        return lines

    def drain(self, seconds: float) -> None:
        """Wait until the whole output of ended pods has been read, at most for so many seconds."""
        end = time.monotonic() + seconds
        for reader in list(self._readers.values()):
            if reader.thread is not None:
                reader.thread.join(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Read no more, and keep what was read."""
        self._stop.set()
        if self.record is not None:
            self.record.flush()

    @property
    def closed(self) -> bool:
        return self._stop.is_set()

    def _flush(self) -> None:
        while self.record is not None and not self._stop.wait(FLUSH_S):
            self.record.flush()

    def _read(self, reader: _Reader, uid: str) -> None:
        while not self._stop.is_set():
            ended = self._ended(reader.name, uid)  # asked before reading, so that an ended pod's output is read to its end
            if ended is None:
                return
            try:
                self._stream(reader, uid, follow=not ended)
            except ClusterError as error:
                ended = False
                self._refused(error)
            except (urllib3.exceptions.HTTPError, OSError):
                ended = False
            if ended:
                return
            self._stop.wait(RETRY_S / 4)

    def _ended(self, name: str, uid: str) -> bool | None:
        """Whether the pod's container has ended; None if the pod is gone."""
        while not self._stop.is_set():
            try:
                pod = self.cluster.pod(name)
            except ClusterError as error:
                self._refused(error)
                self._stop.wait(RETRY_S)
                continue
            return None if pod is None or pod["metadata"]["uid"] != uid else self._in_state(pod, "terminated")
        return None

    def _refused(self, error: ClusterError) -> None:
        """Remember a missing right. Any other error passes, or means that the pod is gone."""
        if error.status in (401, 403):
            self.refused = error

    def _stream(self, reader: _Reader, uid: str, follow: bool) -> None:
        response = self.cluster.log(reader.name, self.kind.container, f"{reader.last[:19]}Z" if reader.last else "", follow)
        try:
            if self._ended(reader.name, uid) is None:  # by now the name may belong to another pod
                return
            for line in reader.new(_lines_of(response)):
                self._lines.append(line)
                if self.record is not None:
                    self.record.add([line])
        finally:
            response.close()

    def _index(self, line: Line) -> str:
        """Which of the job's pods the line is of."""
        return self.kind.pod_index(line.pod.partition("/")[0])

    def _in_state(self, pod: dict[str, Any], *states: str) -> bool:
        """Whether the container that works is in one of these states."""
        statuses = pod["status"].get("containerStatuses") or []
        return any(state in status.get("state", {}) for status in statuses if status.get("name") == self.kind.container for state in states)


def _lines_of(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """Whole lines. One that a broken connection cuts off comes with the next request."""
    rest = b""
    for data in response.stream(65536, decode_content=False):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _padded(stamp: str) -> str:
    """The time with all nine digits, so that times compare as text."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"
