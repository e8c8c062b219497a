"""Scratch: pieces of unfinished work that survive a crash, such as training states, logs and finished shards."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edm2core.errors import EdmError, IntegrityError, MissingError
from edm2core.events import emit
from edm2core.plan.manifest import FileRecord
from edm2core.store.base import Flaw, Store, check_path
from edm2core.store.sealed import sealed, unseal

STATE_SLOTS = ("state-0", "state-1")  # the two pieces that hold a training's states; one of them is always whole


@dataclass(frozen=True)
class Scratch:
    """Named pieces in a folder of a store, written by the holder of a lease.

    A piece has a record, `<prefix>/<name>/<generation>.json`, which names the file of its bytes beside it. The newest generation whose
    bytes verify is the piece. A writer touches nothing of a newer generation, so a writer that has lost its lease harms nothing.
    """

    store: Store
    prefix: str
    generation: int

    def put(self, name: str, data: bytes | Path, about: Mapping[str, Any] | None = None) -> None:
        """Create or replace a piece. `about` is stored in its record, as JSON that can be read without the piece.

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
        others = [entry.path for entry in self.store.list(folder) if entry.path not in (path, record_path)]
        self._delete([other for other in others if other.count("/") == path.count("/")])

    def get(self, name: str, folder: Path) -> Path | None:
        """A local, verified file with the piece, or None if there is none. A damaged piece counts as none, with a warning.

        The file may vanish at the next `put` or `clear` of that name. Do not write to it.
        """
        for path, piece in self._pieces(name, folder):
            if isinstance(piece, Path):
                return piece
            emit("warning", message=f"A piece of unfinished work is damaged and will not be used: {path}. {piece.what}")
        return None

    def about(self, name: str) -> dict[str, Any] | None:
        """What `put` recorded about a piece, from the newest record that can be read, or None. The piece is not verified."""
        for _, data in self._records(name):
            with suppress(ValueError, TypeError):
                return dict(unseal(data, ("file", "size", "sha256")).get("about", {}))
        return None

    def names(self) -> list[str]:
        """The names of all pieces, verified or not."""
        paths = (entry.path.removeprefix(f"{self.prefix}/").rpartition("/") for entry in self.store.list(f"{self.prefix}/"))
        return sorted({name for name, _, file in paths if name and file.endswith(".json") and _generation(file) is not None})

    def damaged(self, folder: Path) -> Iterator[Flaw]:
        """The records that cannot be read, or whose bytes are gone or not those recorded."""
        for name in self.names():
            yield from (Flaw(path, piece.what) for path, piece in self._pieces(name, folder) if not isinstance(piece, Path))

    def drop(self, path: str) -> None:
        """Delete one generation of a piece, given the path of its record."""
        prefix = path.removesuffix(".json")
        self._delete([entry.path for entry in self.store.list(f"{path.rpartition('/')[0]}/") if entry.path.startswith(prefix)])

    def clear(self) -> None:
        """Delete all pieces of this generation and older ones."""
        self._delete([entry.path for entry in self.store.list(f"{self.prefix}/")])

    def _folder(self, name: str) -> str:
        return f"{self.prefix}/{check_path(name)}/"

    def _records(self, name: str) -> list[tuple[str, bytes]]:
        """Paths and contents of a piece's records, the newest generation first."""
        folder = self._folder(name)
        while True:
            listed = [entry.path for entry in self.store.list(folder)]
            records = [path for path in listed if _generation(path.removeprefix(folder)) is not None and path.endswith(".json")]
            with suppress(MissingError):  # a writer has replaced a record since it was listed
                return sorted(((path, self.store.read(path)) for path in records), reverse=True)

    def _pieces(self, name: str, folder: Path) -> Iterator[tuple[str, Path | EdmError]]:
        """Each record's path, the newest first, with its verified file or what is wrong with it."""
        records = self._records(name)
        for path, data in records:
            try:
                yield path, self._fetch(path, data, folder)
            except (IntegrityError, MissingError) as error:
                if self._records(name) != records:  # a writer replaced the piece while it was read
                    yield from self._pieces(name, folder)
                    return
                yield path, error

    def _fetch(self, path: str, data: bytes, folder: Path) -> Path:
        """The verified file of a piece, from its record. Raises IntegrityError if either is damaged, MissingError if the bytes are gone."""
        try:
            values = json.loads(data)
            if "bytes_sha256" in values:  # earlier versions had no digest of the record: their `sha256` is that of the bytes
                values = unseal(data)
            file, record = str(values["file"]), FileRecord(int(values["size"]), str(values.get("bytes_sha256") or values["sha256"]))
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityError(f"Its record cannot be read: {error}.") from None
        if _generation(file) is None:
            raise IntegrityError(f"Its record names {file!r}.")
        return self.store.fetch(f"{path.rpartition('/')[0]}/{file}", folder, record)

    def _delete(self, paths: list[str]) -> None:
        """Delete records before bytes, so that no record names bytes that are gone. Leave newer generations alone."""
        for path in sorted(paths, key=lambda path: not path.endswith(".json")):
            generation = _generation(path.rsplit("/", 1)[1])
            if generation is not None and generation <= self.generation:
                self.store.delete(path)


def _generation(file: str) -> int | None:
    """The generation in a file's name, `000012.json` or `000012-<random>.bytes`; None for another name."""
    match = re.fullmatch(r"(\d{6})(\.json|-[0-9a-f]+\.bytes)", file)
    return int(match[1]) if match else None
