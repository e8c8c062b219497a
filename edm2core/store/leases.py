"""One worker at a time on one thing: leases made of the store's own operations, with generations.

A lease only keeps two workers from doing the same work. That a worker which lost its lease harms nothing follows from generations
in what it writes (Scratch) and from the conditional commit (results), not from anybody's clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edm2core.errors import EdmError, MissingError, StoreError
from edm2core.events import emit
from edm2core.manifest import Ref
from edm2core.store.base import Store

BEAT_S = 5.0
PATIENCE_S = 60.0  # without a beat, by the store's clock, until somebody else may take over


@dataclass(frozen=True)
class Process:
    """A process, told apart from every other one on any machine, now or later; empty strings where the system does not say."""

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


@dataclass(frozen=True)
class Holder:
    """The last one who took a lease, and how it is."""

    generation: int
    owner: str
    process: Process
    started: float  # seconds since 1970, by the holder's clock
    released: bool
    beat_age_s: float  # by the store's clock

    @property
    def alive(self) -> bool:
        """Whether others have to wait for it."""
        return not self.released and not self.process.gone and self.beat_age_s < PATIENCE_S

    @property
    def who(self) -> str:
        return f"pid {self.process.pid} on host {self.process.host}"

    def __str__(self) -> str:
        since = time.strftime("%H:%M", time.localtime(self.started))
        return f"{self.who} since {since}, last beat {self.beat_age_s:.0f} s ago"


class Busy(StoreError):
    """Somebody else works on it; `holder` says who."""

    def __init__(self, ref: Ref, holder: Holder) -> None:
        super().__init__(
            f"{holder.who} is working on {ref}.",
            where=str(holder),
            do_next=f"Wait until it is done; when it does not beat for {PATIENCE_S:.0f} s its work is taken over.",
            permanent=False,
        )
        self.holder = holder


class Lease:
    """The right to work on something, kept by a thread that writes a beat; a context manager that releases it."""

    def __init__(self, store: Store, ref: Ref, generation: int) -> None:
        self.generation = generation
        self.lost = False  # somebody took over: what this process still does will not count
        self._store, self._ref = store, ref
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {ref}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give it back, so that the next one need not wait; a store that cannot be reached now only makes that one wait."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        if not self.lost:
            with _only_warned(f"The lease on {self._ref} could not be released"):
                self._beat(released=True)

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            with _only_warned(f"The lease on {self._ref} could not be renewed"):
                if _newest(self._store, self._ref) > self.generation:
                    self.lost = True
                    return
                self._beat(released=False)

    def _beat(self, released: bool) -> None:
        self._store.write(_path(self._ref, self.generation, "beat"), json.dumps({"released": released, "time": time.time()}).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def acquire(store: Store, ref: Ref, owner: str | None = None) -> Lease:
    """Take the lease on a result, as a new generation.

    Raises Busy while somebody else holds it: not released, not a process of this machine that is gone, and heard of within 60 s.
    A holder of the same `owner` is not waited for: the name of something of which only one exists at a time, such as a
    Kubernetes job's pod, whose restart is then at work at once.
    """
    while True:
        last = holder(store, ref)
        if last is not None and last.alive and not (owner and owner == last.owner):
            raise Busy(ref, last)
        generation = last.generation + 1 if last else 1
        record = {"owner": owner or "", "process": asdict(Process.current()), "started": time.time(), "token": secrets.token_hex(8)}
        won = store.create(_path(ref, generation, "json"), json.dumps(record).encode())
        # A newer one means that this process slept while others came and went, and the generation it then made had been cleared away.
        if won and _newest(store, ref) == generation:
            _delete_before(store, ref, generation)
            return Lease(store, ref, generation)


def holder(store: Store, ref: Ref) -> Holder | None:
    """The last one who took the lease, alive or not; None if nobody ever did."""
    while True:
        ages = {entry.path: entry.age_s for entry in store.list(_folder(ref))}
        generation = _newest_of(ages)
        if generation == 0:
            return None
        paths = [_path(ref, generation, "json"), _path(ref, generation, "beat")]
        with suppress(MissingError):  # cleared away in between by a newer one
            record = _values(store.read(paths[0]))
            beat = _values(store.read(paths[1])) if paths[1] in ages else {}
            age = min(ages[path] for path in paths if path in ages)
            return _holder(generation, record, bool(beat.get("released")), age)


def _holder(generation: int, record: dict[str, Any], released: bool, age: float) -> Holder:
    try:
        process = Process(**record["process"])
        return Holder(generation, str(record["owner"]), process, float(record["started"]), released, age)
    except (KeyError, TypeError, ValueError):  # not ours to understand: it counts until it is silent
        return Holder(generation, "", Process("unknown", "", "", 0, ""), time.time() - age, released, age)


def _values(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _folder(ref: Ref) -> str:
    return f"leases/{ref.stage}/{ref.key}/"


def _path(ref: Ref, generation: int, kind: str) -> str:
    return f"{_folder(ref)}{generation:06d}.{kind}"


def _newest(store: Store, ref: Ref) -> int:
    return _newest_of(entry.path for entry in store.list(_folder(ref)))


def _newest_of(paths: Iterable[str]) -> int:
    names = (path.rsplit("/", 1)[1] for path in paths)
    return max((int(name[:6]) for name in names if name.endswith(".json") and name[:6].isdigit()), default=0)


def _delete_before(store: Store, ref: Ref, generation: int) -> None:
    for entry in list(store.list(_folder(ref))):
        number = entry.path.rsplit("/", 1)[1][:6]
        if number.isdigit() and int(number) < generation:
            store.delete(entry.path)


@contextmanager
def _only_warned(what: str) -> Iterator[None]:
    """Errors of the store become a warning: the work itself goes on."""
    try:
        yield
    except EdmError as error:
        emit("warning", message=f"{what}: {error.what}")


@cache
def _machine() -> tuple[str, str, str]:
    """Host, boot and namespace of process numbers."""
    try:
        return socket.gethostname(), Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname(), "", ""


def _begun(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is none, or only a dead one nobody has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
