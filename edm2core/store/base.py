"""Where bytes live: the few operations that everything else in the store is built from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from edm2core.manifest import FileRecord


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
        """Create an object only if there is none; False if there is one. Of many writers exactly one gets True."""

    def upload(self, source: Path, path: str) -> FileRecord:
        """Create or replace an object from a file, and say what was stored."""

    def fetch(self, path: str, folder: Path, record: FileRecord | None = None) -> Path:
        """A local file with the object's bytes, verified against `record`; a remote store downloads into `folder`.

        Raises MissingError if it is not there and IntegrityError if its bytes are not those recorded. Do not write to the file.
        """

    def copy(self, source: str, path: str) -> None:
        """Create or replace `path` with the bytes of `source`, without moving them through this process where that can be avoided."""

    def stat(self, path: str) -> Entry | None:
        """The object's entry, or None."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects whose path starts with the folder `prefix` (which ends with a slash, or is empty), sorted by path."""

    def delete(self, path: str) -> None:
        """Remove an object; nothing happens if there is none."""
