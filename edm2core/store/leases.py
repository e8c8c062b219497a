"""One worker at a time on one thing: leases made of the store's own operations, with generations.

A lease only keeps two workers from doing the same work. That a worker which lost its lease harms nothing follows from generations
in what it writes (Scratch) and from the conditional commit (results), not from anybody's clock.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from edm2core.errors import EdmError, IntegrityError, MissingError, StoreError
from edm2core.events import emit
from edm2core.plan.manifest import Ref
from edm2core.store.base import Entry, Store
from edm2core.store.process import Process
from edm2core.store.sealed import read_sealed, sealed
from edm2core.store.summary import each

__all__ = ["BEAT_S", "PATIENCE_S", "Busy", "Holder", "Lease", "Process", "acquire", "holder", "standing"]

BEAT_S = 5.0
PATIENCE_S = 60.0  # without a beat, by the store's clock, until somebody else may take over
SILENT_S = 3600.0  # without a beat, until one that was not given back can no longer wake up and commit
GC = Ref("gc", "store")  # held while what no run needs is removed
RECORD, BEAT = ("owner", "process", "started", "token"), ("released", "time")  # their fields


@dataclass(frozen=True)
class Holder:
    """The last one who took a lease, and how it is."""

    generation: int
    owner: str
    process: Process
    started: float  # seconds since 1970, by the holder's clock
    released: bool
    beat_age_s: float  # by the store's clock
    damaged: str = ""  # the file that cannot be read and why: then nothing is known of the holder but whether it is silent

    @property
    def alive(self) -> bool:
        """Whether others have to wait for it."""
        return not self.released and not self.process.gone and self.beat_age_s < PATIENCE_S

    @property
    def could_commit(self) -> bool:
        """Whether it may still write: it is alive, or has been silent for less than an hour and may have been asleep."""
        return not self.released and not self.process.gone and self.beat_age_s < SILENT_S

    @property
    def who(self) -> str:
        if self.damaged:
            return "a process whose lease is damaged"
        return f"pid {self.process.pid} on host {self.process.host}"

    def __str__(self) -> str:
        if self.damaged:
            return f"{self.damaged}; last beat {self.beat_age_s:.0f} s ago"
        since = time.strftime("%H:%M", time.localtime(self.started))
        return f"{self.who} since {since}, last beat {self.beat_age_s:.0f} s ago"


CLEARED = Holder(-1, "", Process("", "", "", 0, ""), 0.0, True, 0.0)


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
        self._store.write(_path(self._ref, self.generation, "beat"), sealed({"released": released, "time": time.time()}, None))

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
        won = store.create(_path(ref, generation, "json"), sealed(record, None))
        # A newer one means that this process slept while others came and went, and the generation it then made had been cleared away.
        if won and _newest(store, ref) == generation:
            _delete_before(store, ref, generation)
            return Lease(store, ref, generation)


def holder(store: Store, ref: Ref) -> Holder | None:
    """The last one who took the lease, alive or not; None if nobody ever did."""
    while True:
        found = _holder(store, ref, list(store.list(_folder(ref))))
        if found != CLEARED:
            return found


def standing(store: Store) -> dict[Ref, Holder]:
    """The last holder of every lease that one was heard of within the hour: who may still commit something, or has just done so."""
    return newest(store, SILENT_S)


def newest(store: Store, younger_than_s: float = float("inf")) -> dict[Ref, Holder]:
    """The last holder of every lease that one was heard of since then."""
    folders: dict[Ref, list[Entry]] = {}
    for entry in store.list("leases/"):
        parts = entry.path.split("/")
        if len(parts) == 4:
            folders.setdefault(Ref(parts[1], parts[2]), []).append(entry)
    recent = {ref: entries for ref, entries in folders.items() if min(entry.age_s for entry in entries) < younger_than_s}
    read = each(store, lambda ref: _holder(store, ref, recent[ref]), recent)
    found = {ref: holder(store, ref) if last == CLEARED else last for ref, last in zip(recent, read, strict=True)}
    return {ref: last for ref, last in found.items() if last}


def mend(store: Store, ref: Ref) -> None:
    """Give back a damaged lease in its holder's place, as the generation that it is."""
    last = holder(store, ref)
    if last is not None and last.damaged:
        record = {"owner": "", "process": asdict(Process("unknown", "", "", 0, "")), "started": last.started, "token": ""}
        store.write(_path(ref, last.generation, "json"), sealed(record, None))
        store.write(_path(ref, last.generation, "beat"), sealed({"released": True, "time": time.time()}, None))


def _holder(store: Store, ref: Ref, entries: list[Entry]) -> Holder | None:
    """The newest generation's of what was listed; CLEARED where a newer one has taken its files away since."""
    ages = {entry.path: entry.age_s for entry in entries}
    generation = _newest_of(ages)
    if generation == 0:
        return None
    paths = [_path(ref, generation, "json"), _path(ref, generation, "beat")]
    age, damaged, values = min(ages[path] for path in paths if path in ages), "", [dict[str, Any](), dict[str, Any]()]
    for number, (path, fields) in enumerate(zip(paths, (RECORD, BEAT), strict=True)):
        try:
            values[number] = read_sealed(store, path, fields) if path in ages else {}
        except MissingError:
            return CLEARED
        except IntegrityError as error:
            damaged = damaged or f"{path}: {error.what}"
    record, beat = values
    released = beat.get("released") is True
    try:
        process = Process(**record["process"])
        return Holder(generation, str(record["owner"]), process, float(record["started"]), released, age, damaged)
    except (KeyError, TypeError, ValueError):  # not ours to understand: it counts until it is silent
        damaged = damaged or f"{paths[0]}: The record is damaged: it names no process."
        return Holder(generation, "", Process("unknown", "", "", 0, ""), time.time() - age, released, age, damaged)


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
