"""Leases: the right to work on one thing, which one worker at a time holds. They are objects of the store, with generations.

A lease only keeps two workers from doing the same work. A worker that has lost its lease harms nothing, whatever anybody's clock says: what
it writes carries its generation (scratch.py), and of several commits one counts (results.py).
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from edm2core.errors import EdmError, IntegrityError, MissingError, StoreError
from edm2core.events import emit
from edm2core.plan.manifest import Ref
from edm2core.store.base import Entry, Flaw, Store, each
from edm2core.store.process import Process
from edm2core.store.sealed import read_sealed, sealed
from edm2core.words import duration

T = TypeVar("T")
BEAT_S = 5.0  # the time between two beats, by which a worker shows that it is alive
PATIENCE_S = 60.0  # the time without a beat, by the store's clock, after which another worker may take over
SILENT_S = 3600.0  # the time without a beat after which a worker that did not release its lease can no longer wake up and commit
GC = Ref("gc", "store")  # held while what no run needs is removed
RECORD, BEAT = ("owner", "process", "started", "token"), ("released", "time")  # the fields of a lease's two records
UNKNOWN = Process("unknown", "", "", 0, "")


@dataclass(frozen=True)
class Holder:
    """The last worker that took a lease, and its state."""

    generation: int
    owner: str
    process: Process
    started: float  # seconds since 1970, by the holder's clock
    released: bool
    beat_age_s: float  # by the store's clock
    damaged: Flaw | None = None  # the record that cannot be read; of the holder then only the age of its last beat is known

    @property
    def alive(self) -> bool:
        """Whether other workers have to wait for this one."""
        return self.could_commit and self.beat_age_s < PATIENCE_S

    @property
    def could_commit(self) -> bool:
        """Whether this worker may still write. If it has been silent for less than an hour, it may just have been asleep."""
        return not self.released and not self.process.gone and self.beat_age_s < SILENT_S

    @property
    def who(self) -> str:
        return "a process whose lease is damaged" if self.damaged else f"pid {self.process.pid} on host {self.process.host}"

    def __str__(self) -> str:
        since = f"{self.who} since {time.strftime('%H:%M', time.localtime(self.started))},"
        return f"{f'{self.damaged};' if self.damaged else since} last beat {duration(self.beat_age_s)} ago"


class Busy(StoreError):
    """Another worker holds the lease; `holder` says who."""

    def __init__(self, ref: Ref, holder: Holder) -> None:
        super().__init__(
            f"{holder.who} is working on {ref}.",
            where=str(holder),
            do_next=f"Wait until it is done. If it gives no sign of life for {PATIENCE_S:.0f} s, its work is taken over.",
            permanent=False,
        )
        self.holder = holder


class Lease(AbstractContextManager["Lease"]):
    """A lease that this process holds. A thread keeps it by writing beats. As a context manager, it is released at the end."""

    def __init__(self, store: Store, ref: Ref, generation: int) -> None:
        self.generation = generation
        self.lost = False  # another worker took over: what this process still does will not count
        self._store, self._ref = store, ref
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {ref}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Release it, so that the next worker need not wait. If the store cannot be reached now, that worker waits."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        if not self.lost:
            with _only_warned(f"The lease on {self._ref} could not be released"):
                _write_beat(self._store, self._ref, self.generation, released=True)

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            with _only_warned(f"The lease on {self._ref} could not be renewed"):
                if _newest(_paths(self._store, self._ref)) > self.generation:
                    self.lost = True
                    return
                _write_beat(self._store, self._ref, self.generation, released=False)

    def __exit__(self, *error: object) -> None:
        self.release()


def acquire(store: Store, ref: Ref, owner: str = "") -> Lease:
    """Take the lease on a result, as a new generation.

    Raises Busy while another worker holds it: the worker has not released it, its last beat is less than 60 s old, and it is not known to
    have ended on this machine. `owner` names something of which only one exists at a time, such as a Kubernetes job's pod. Nobody waits
    for a holder of the same owner, so a pod that was restarted is at work at once.
    """
    while True:
        last = holder(store, ref)
        if last is not None and last.alive and not (owner and owner == last.owner):
            raise Busy(ref, last)
        generation = last.generation + 1 if last else 1
        record = {"owner": owner, "process": asdict(Process.current()), "started": time.time(), "token": secrets.token_hex(8)}
        created = store.create(_path(ref, generation, "json"), sealed(record, None))
        # A newer generation means that this process slept. Meanwhile others came and went, and removed the records of this generation.
        paths = _paths(store, ref)
        if created and _newest(paths) == generation:
            for path in paths:
                if 0 < _generation(path) < generation:
                    store.delete(path)
            return Lease(store, ref, generation)


def holder(store: Store, ref: Ref) -> Holder | None:
    """The last worker that took the lease, alive or not; None if none ever did."""
    while True:
        with suppress(MissingError):  # a newer holder has removed the records since they were listed
            return _read_holder(store, ref, list(store.list(_folder(ref))))


def holders(store: Store, younger_than_s: float = float("inf")) -> dict[Ref, Holder]:
    """The last holder of every lease that has a record younger than `younger_than_s`, by the store's clock."""
    folders: dict[Ref, list[Entry]] = {}
    for entry in store.list("leases/"):
        parts = entry.path.split("/")
        if len(parts) == 4:
            folders.setdefault(Ref(parts[1], parts[2]), []).append(entry)
    recent = {ref: entries for ref, entries in folders.items() if min(entry.age_s for entry in entries) < younger_than_s}

    def read(ref: Ref) -> Holder | None:
        with suppress(MissingError):
            return _read_holder(store, ref, recent[ref])
        return holder(store, ref)

    return {ref: last for ref, last in zip(recent, each(store, read, recent), strict=True) if last}


def mend(store: Store, ref: Ref) -> None:
    """Release a damaged lease in its holder's place, without a new generation."""
    last = holder(store, ref)
    if last is not None and last.damaged:
        record = {"owner": "", "process": asdict(UNKNOWN), "started": last.started, "token": ""}
        store.write(_path(ref, last.generation, "json"), sealed(record, None))
        _write_beat(store, ref, last.generation, released=True)


def _read_holder(store: Store, ref: Ref, entries: list[Entry]) -> Holder | None:
    """The holder of the newest generation that was listed. Raises MissingError if its records have been deleted since."""
    ages = {entry.path: entry.age_s for entry in entries}
    generation = _newest(ages)
    if generation == 0:
        return None
    flaws: list[Flaw] = []

    def read(path: str, parse: Callable[[dict[str, Any]], T], fields: tuple[str, ...], otherwise: T) -> T:
        try:
            return read_sealed(store, path, parse, fields) if path in ages else otherwise
        except IntegrityError as error:
            flaws.append(Flaw(path, error.what))
            return otherwise

    record_path, beat_path = _path(ref, generation, "json"), _path(ref, generation, "beat")
    age = min(ages[path] for path in (record_path, beat_path) if path in ages)
    unknown = "", UNKNOWN, time.time() - age  # such a holder counts as alive until it has been silent for long
    owner, process, started = read(record_path, _parse_record, RECORD, unknown)
    released = read(beat_path, lambda values: values.get("released") is True, BEAT, False)
    return Holder(generation, owner, process, started, released, age, flaws[0] if flaws else None)


def _parse_record(values: dict[str, Any]) -> tuple[str, Process, float]:
    return str(values["owner"]), Process(**values["process"]), float(values["started"])


def _write_beat(store: Store, ref: Ref, generation: int, *, released: bool) -> None:
    store.write(_path(ref, generation, "beat"), sealed({"released": released, "time": time.time()}, None))


def _folder(ref: Ref) -> str:
    return f"leases/{ref.stage}/{ref.key}/"


def _path(ref: Ref, generation: int, kind: str) -> str:
    return f"{_folder(ref)}{generation:06d}.{kind}"


def _paths(store: Store, ref: Ref) -> list[str]:
    return [entry.path for entry in store.list(_folder(ref))]


def _newest(paths: Iterable[str]) -> int:
    return max((_generation(path) for path in paths if path.endswith(".json")), default=0)


def _generation(path: str) -> int:
    """The generation of a record by its path; 0 for another file."""
    number = path.rpartition("/")[2][:6]
    return int(number) if number.isdigit() else 0


@contextmanager
def _only_warned(what: str) -> Iterator[None]:
    """Turn errors of the store into a warning: the work itself goes on."""
    try:
        yield
    except EdmError as error:
        emit("warning", message=f"{what}: {error.what}")
