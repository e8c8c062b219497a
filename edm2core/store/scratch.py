"""Pieces of unfinished work that survive a crash: training states, logs, finished shards."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edm2core.errors import IntegrityError, MissingError
from edm2core.events import emit
from edm2core.plan.manifest import FileRecord
from edm2core.store.base import Store, check_path
from edm2core.store.sealed import sealed, unseal

STATE_SLOTS = ("state-0", "state-1")  # of a training: two, of which one is always whole


@dataclass(frozen=True)
class Scratch:
    """Named pieces under a folder of a store, written by the holder of a lease.

    A piece is `<prefix>/<name>/<generation>.json`, which names the bytes beside it. The newest generation whose bytes are those
    recorded is the piece; a writer touches nothing of a newer generation, so one that has lost its lease harms nothing.
    """

    store: Store
    prefix: str
    generation: int

    def put(self, name: str, data: bytes | Path, about: Mapping[str, Any] | None = None) -> None:
        """Create or replace a piece, with what is to be known `about` it without reading it (JSON).

        A file may be deleted afterwards, but not written into (Store.upload).
        """
        folder = self._folder(name)
        path = f"{folder}{self.generation:06d}-{secrets.token_hex(6)}.bytes"
        if isinstance(data, Path):
            record = self.store.upload(data, path)
        else:
            self.store.write(path, data)
            record = FileRecord(len(data), hashlib.sha256(data).hexdigest())
        record_path = f"{folder}{self.generation:06d}.json"
        values = {"file": path.removeprefix(folder), "size": record.size, "bytes_sha256": record.sha256, "about": dict(about or {})}
        self.store.write(record_path, sealed(values))
        self._delete(
            [e.path for e in self.store.list(folder) if e.path not in (path, record_path) and e.path.count("/") == path.count("/")]
        )

    def get(self, name: str, folder: Path) -> Path | None:
        """A local, verified file with the piece, or None if there is none; a damaged one is reported and counts as none.

        It may go away at the next `put` or `clear` of that name. Do not write to it.
        """
        while True:
            records = self._records(name)
            for path, data in records:
                try:
                    return self.store.fetch(*_parse(path, data, folder))
                except (IntegrityError, MissingError) as error:
                    if self._records(name) != records:
                        break  # not damage: a writer replaced the piece while it was read
                    emit("warning", message=f"A piece of unfinished work is damaged and will not be used: {path}. {error.what}")
            else:
                return None

    def about(self, name: str) -> dict[str, Any] | None:
        """What is known about a piece, of the newest generation that says anything; None where there is none. The piece is not verified."""
        for _, data in self._records(name):
            with suppress(ValueError, TypeError):
                return dict(unseal(data, ("file", "size", "sha256")).get("about", {}))
        return None

    def names(self) -> list[str]:
        """The names of all pieces, verified or not."""
        found = (entry.path.removeprefix(f"{self.prefix}/").rpartition("/") for entry in self.store.list(f"{self.prefix}/"))
        return sorted({name for name, _, file in found if name and file.endswith(".json") and _generation(file) is not None})

    def damaged(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The records of pieces that cannot be read, or whose bytes are not those recorded or are gone; and in words why."""
        for name in self.names():
            records = self._records(name)
            for path, data in records:
                try:
                    self.store.fetch(*_parse(path, data, folder))
                except (IntegrityError, MissingError) as error:
                    if self._records(name) == records:  # else a writer has replaced it
                        yield path, error.what

    def drop(self, path: str) -> None:
        """Delete a piece's generation by its record."""
        prefix = path.removesuffix(".json")
        self._delete([entry.path for entry in self.store.list(f"{path.rpartition('/')[0]}/") if entry.path.startswith(prefix)])

    def clear(self) -> None:
        """Delete all pieces of this generation and older ones."""
        self._delete([entry.path for entry in self.store.list(f"{self.prefix}/")])

    def _folder(self, name: str) -> str:
        return f"{self.prefix}/{check_path(name)}/"

    def _records(self, name: str) -> list[tuple[str, bytes]]:
        """Paths and contents of a piece's records, of the newest generation first."""
        folder = self._folder(name)
        while True:
            listed = [entry.path for entry in self.store.list(folder)]
            wanted = [path for path in listed if _generation(path.removeprefix(folder)) is not None and path.endswith(".json")]
            try:
                return sorted(((path, self.store.read(path)) for path in wanted), reverse=True)
            except MissingError:
                continue  # a writer has put a newer one in its place since it was listed

    def _delete(self, paths: list[str]) -> None:
        """Records before bytes, so that no record names bytes that are gone; nothing of a newer generation."""
        for path in sorted(paths, key=lambda path: not path.endswith(".json")):
            generation = _generation(path.rsplit("/", 1)[1])
            if generation is not None and generation <= self.generation:
                self.store.delete(path)


def _parse(path: str, data: bytes, folder: Path) -> tuple[str, Path, FileRecord]:
    """What to fetch for the record at `path`; raises IntegrityError for one that cannot be read."""
    try:
        values = json.loads(data)
        if "bytes_sha256" in values:  # earlier versions wrote the digest of the bytes alone, as `sha256`
            values = unseal(data)
        file, record = str(values["file"]), FileRecord(int(values["size"]), str(values.get("bytes_sha256") or values["sha256"]))
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"Its record cannot be read: {error}.") from None
    if _generation(file) is None:
        raise IntegrityError(f"Its record names {file!r}.")
    return f"{path.rpartition('/')[0]}/{file}", folder, record


def _generation(file: str) -> int | None:
    """Of the writer of `000012.json` or `000012-<random>.bytes`."""
    match = re.fullmatch(r"(\d{6})(\.json|-[0-9a-f]+\.bytes)", file)
    return int(match[1]) if match else None
