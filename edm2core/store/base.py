"""The store as a protocol: the few operations on objects that everything else in this package is built from."""

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from edm2core.errors import IntegrityError, MissingError, StoreError
from edm2core.plan.manifest import FileRecord

T = TypeVar("T")
R = TypeVar("R")
FULL = (errno.ENOSPC, errno.EDQUOT)  # the system's error numbers for a full disk, and for a user's full quota
UNKNOWN_S = 86_400.0  # the least time without a change after which a file that another machine was writing counts as left behind
AT_ONCE = 16  # the most requests to a remote store at once
PART = 2**23  # the most bytes of one read of a file that grows
FREE_SPACE = "Free some space (edm2 gc), then run again; finished work is kept."


class Entry(NamedTuple):
    """A stored object: its path from the store's root, its bytes, and the seconds since it was written, by the store's own clock."""

    path: str
    size: int
    age_s: float


class Flaw(NamedTuple):
    """A stored file that is not as it was written, and what is wrong with it."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Store(Protocol):
    """A tree of objects under one URI. Paths are relative, with forward slashes.

    Every write is atomic: whenever the writer dies, a reader sees the old bytes, the new bytes or nothing.
    All methods raise StoreError where the store is full, read-only, unreachable or denies access.
    """

    uri: str

    def read(self, path: str) -> bytes:
        """The object's bytes; raises MissingError if it is not there."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace an object."""

    def create(self, path: str, data: bytes) -> bool:
        """Create an object unless there is one already. Of many callers exactly one gets True."""

    def upload(self, source: Path, path: str) -> FileRecord:
        """Create or replace an object from a file; return its size and digest.

        The caller may delete or replace the file afterwards, but must not write into it: a local store shares its bytes.
        """

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """At most `size` bytes of an object from byte `start` on, without verifying them; raises MissingError if it is not there."""

    def fetch(self, path: str, folder: Path, record: FileRecord | None = None) -> Path:
        """A local file with the object's bytes, verified against `record`. A remote store downloads it into `folder`.

        Raises MissingError if it is not there and IntegrityError if its bytes are not those recorded. Do not write to the file.
        """

    def record(self, path: str) -> FileRecord:
        """Size and digest of an object, from reading all of it; raises MissingError if it is not there."""

    def stat(self, path: str) -> Entry | None:
        """The object's entry, or None."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects below the folder `prefix`, which ends with a slash or is empty; sorted by path."""

    def folders(self, prefix: str) -> tuple[str, ...]:
        """The names of the folders directly below the folder `prefix`, sorted. What is in them is not listed."""

    def delete(self, path: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def sweep(self, older_than_s: float, could_commit: Callable[[str], bool]) -> int:
        """Delete what interrupted writes left behind, which no reader ever sees; returns the bytes freed.

        What a living process is writing stays, however old it is. If it cannot be known whether the writer lives, a file stays for a day,
        and longer if `could_commit` says that somebody may still write it. That function takes the object's path, or "" if it is unknown.
        """


def check_path(path: str) -> str:
    """The same path; raises StoreError if it could lead out of the store."""
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or not path.isprintable() or "\\" in path:
        raise StoreError("This is not the path of anything in a store.", where=repr(path), do_next="Check what wrote it.")
    return path


def check_prefix(prefix: str) -> str:
    """The same path of a folder, which ends with a slash or is empty; raises StoreError if it could lead out of the store."""
    return f"{check_path(prefix.removesuffix('/'))}/" if prefix else ""


def file_record(file: Path) -> FileRecord:
    """Size and digest of a local file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileRecord(stream.tell(), digest)


def identity(file: Path) -> tuple[int, int, int]:
    """Inode, time of change and size of a local file: a file whose identity is the same has not been written since."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def unchanged(source: Path) -> Iterator[FileRecord]:
    """Size and digest of a local file while it is being stored.

    Raises MissingError if it is not there, and at the end IntegrityError if it was written to meanwhile.
    """
    if not source.is_file():
        raise MissingError("The file that was to be stored is not there.", where=str(source))
    before = identity(source)
    yield file_record(source)
    if identity(source) != before:
        raise IntegrityError("The file changed while it was being stored.", where=str(source), do_next="Run again.")


def damaged(what: str, actual: FileRecord, recorded: str, where: str) -> IntegrityError:
    """The error for an object whose bytes are not those recorded. `what` and `recorded` are put into its sentence."""
    return IntegrityError(
        f"The stored {what} is damaged: {actual.size} bytes with SHA-256 {actual.sha256[:12]}…, recorded were {recorded}.",
        where=where,
        do_next="Delete the result it belongs to; running again makes it anew.",
    )


def difference(store: Store, path: str, record: FileRecord, name: str = "It", *, contents: bool = True, grows: bool = False) -> str:
    """A sentence about `name` if a stored object is not as it was recorded, else "".

    Without `contents` only its size is compared; of a file that `grows`, only as many bytes as were recorded.
    """
    entry = store.stat(path)
    if entry is None:
        return f"{name} is missing."
    if entry.size < record.size or (entry.size > record.size and not grows):
        return f"{name} has {entry.size} bytes; recorded were {record.size}."
    recorded = f"recorded (SHA-256 {record.sha256[:12]}…)."
    if grows:
        digest = hashlib.sha256()
        for start in range(0, record.size, PART):
            digest.update(store.read_part(path, start, min(PART, record.size - start)))
        return "" if digest.hexdigest() == record.sha256 else f"{name} does not begin with the {record.size} bytes {recorded}"
    return "" if not contents or store.record(path) == record else f"{name} has other contents than those {recorded}"


@contextmanager
def local_disk(where: Path) -> Iterator[None]:
    """Turn errors of this machine's own disk into StoreError. Files lie there on their way to the store or from it."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        what = "This machine's disk is full." if full else f"This machine's disk: {error.strerror or error}."
        raise StoreError(what, where=str(error.filename or where), do_next="Free some space, then run again." if full else "") from error


def is_local(store: Store) -> bool:
    """Whether the store is a folder that this machine sees."""
    return getattr(store, "root", None) is not None


def each(store: Store, work: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """The results of `work` on all things, in their order. For a remote store the calls run side by side, since they mostly wait."""
    things = list(things)
    if is_local(store) or len(things) < 2:
        return [work(thing) for thing in things]
    with ThreadPoolExecutor(min(AT_ONCE, len(things))) as pool:
        return list(pool.map(work, things))
