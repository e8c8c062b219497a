"""Where bytes live: the few operations that everything else in the store is built from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from edm2core.errors import StoreError
from edm2core.plan.manifest import FileRecord

UNKNOWN_S = 86_400.0  # without a change, until what a process of another machine was writing counts as left behind


class Entry(NamedTuple):
    """A stored object: path from the store's root, bytes, and seconds since it was last written by the store's own clock."""

    path: str
    size: int
    age_s: float


class Store(Protocol):
    """A tree of objects under one URI. Paths are relative, with forward slashes.

    Every write is atomic: a reader sees the old bytes, the new bytes or nothing, whenever the writer dies.
    All methods raise StoreError (full, read-only, unreachable, denied) with words for it.
    """

    uri: str

    def read(self, path: str) -> bytes:
        """The object's bytes; raises MissingError if it is not there."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace an object."""

    def create(self, path: str, data: bytes) -> bool:
        """Create an object only if there is none; False if there is one. Of many callers exactly one gets True."""

    def upload(self, source: Path, path: str) -> FileRecord:
        """Create or replace an object from a file, and say what was stored.

        The file may be deleted or replaced afterwards, but not written into: a local store shares its bytes.
        """

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """At most `size` bytes of an object from byte `start` on, not verified; raises MissingError if it is not there."""

    def fetch(self, path: str, folder: Path, record: FileRecord | None = None) -> Path:
        """A local file with the object's bytes, verified against `record`; a remote store downloads into `folder`.

        Raises MissingError if it is not there and IntegrityError if its bytes are not those recorded. Do not write to the file.
        """

    def record(self, path: str) -> FileRecord:
        """Size and digest of an object, from reading all of it; raises MissingError if it is not there."""

    def copy(self, source: str, path: str) -> None:
        """Create or replace `path` with the bytes of `source`, without moving them through this process where that can be avoided."""

    def stat(self, path: str) -> Entry | None:
        """The object's entry, or None."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects whose path starts with the folder `prefix` (which ends with a slash, or is empty), sorted by path."""

    def folders(self, prefix: str) -> tuple[str, ...]:
        """The names of the folders directly below the folder `prefix`, sorted, without listing what is in them."""

    def delete(self, path: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def sweep(self, older_than_s: float, could_commit: Callable[[str], bool]) -> int:
        """Delete what interrupted writes left behind (no reader ever sees it); returns the bytes freed.

        What a process that lives is writing stays, however old. Where it cannot be known whether the writer lives, what is younger than a
        day stays in any case, and what `could_commit` says somebody may be writing, by its path or "" where that is not known.
        """


def check_path(path: str) -> str:
    """The path of an object as it is given; raises StoreError if it could lead out of the store."""
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or not path.isprintable() or "\\" in path:
        raise StoreError("This is not the path of anything in a store.", where=repr(path), do_next="Check who wrote it.")
    return path


def check_prefix(prefix: str) -> str:
    """The path of a folder with its closing slash, or nothing; raises StoreError if it could lead out of the store."""
    if prefix:
        check_path(prefix.removesuffix("/"))
        if not prefix.endswith("/"):
            raise StoreError("A folder in a store ends with a slash.", where=repr(prefix))
    return prefix


def file_record(file: Path) -> FileRecord:
    """Size and digest of a local file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileRecord(stream.tell(), digest)
