"""What users brought, in the store: tasks that run elsewhere need neither the user's disk nor the network it was published on.

`sources/<hex>` holds a file's bytes, `sources/<hex>.tar` a folder's files; <hex> is the digest by which the plan names the source.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from edm2core.data.files import list_folder
from edm2core.data.source import digest_of, digest_of_entries
from edm2core.errors import IntegrityError, StoreError
from edm2core.plan.manifest import Ref
from edm2core.store.base import Store

PACKED = ".tar"


def stored_path(digest: str) -> str:
    """Where a source of that digest (`<algorithm>:<hex>`) lies in a store; a folder's with `.tar` behind it."""
    return f"sources/{digest.partition(':')[2]}"


def source_ref(digest: str) -> Ref:
    """What a lease is held on while a source is being uploaded."""
    return Ref("source", digest.partition(":")[2])


def is_stored(store: Store, digest: str) -> bool:
    """Whether the store holds that source."""
    return any(store.stat(stored_path(digest) + ending) is not None for ending in ("", PACKED))


def put(store: Store, digest: str, source: Path, scratch: Path) -> None:
    """Store a file, or a folder packed into one object (below `scratch` first); other bytes than the digest's are refused.

    A digest of less than full length, as a published file's name may carry, is the beginning of the whole one.
    """
    if not source.is_dir():
        path = stored_path(digest)
        if not digest_of(source, _algorithm(digest)).startswith(digest):
            raise _changed(source)
        if getattr(store, "root", None) is None:
            store.upload(source, path)
            return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        if not source.is_dir():  # a store that is a folder takes the file itself, which is the user's
            store.upload(Path(shutil.copyfile(source, Path(folder) / "file")), stored_path(digest))
            return
        packed = Path(folder) / "folder.tar"
        try:
            _pack(source, packed)
            found = _digest_of_packed(packed, _algorithm(digest))
        except OSError as error:
            raise _disk(packed, error) from error
        if found != digest:
            raise _changed(source)
        store.upload(packed, stored_path(digest) + PACKED)


def take(store: Store, digest: str, folder: Path) -> Path | None:
    """The source of that digest as a file or folder on this machine, checked; None if the store has none.

    What has to be brought here or unpacked is put into `folder`. Raises IntegrityError for other bytes than the digest's.
    """
    for ending in ("", PACKED):
        path = stored_path(digest) + ending
        if store.stat(path) is None:
            continue
        source = store.fetch(path, folder)
        damaged = IntegrityError(
            "A source in the store is damaged: its bytes are not those of its digest.",
            where=f"{store.uri}/{path}",
            do_next="Delete that object; submitting the experiment again uploads it anew.",
        )
        if ending == PACKED:
            try:
                source = _unpack(source, folder / "unpacked")
            except tarfile.TarError as error:
                raise damaged from error
            except OSError as error:
                raise _disk(folder, error) from error
        if not digest_of(source, _algorithm(digest)).startswith(digest):
            raise damaged
        return source
    return None


def _algorithm(digest: str) -> str:
    return digest.partition(":")[0]


def _pack(folder: Path, packed: Path) -> None:
    files, folders = list_folder(folder)
    with tarfile.open(packed, "w", dereference=True) as archive:
        for name in (*sorted(folders), *files):
            archive.add(folder / name, name, recursive=False)


def _unpack(packed: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    with tarfile.open(packed, "r:") as archive:
        archive.extractall(folder, filter="data")
    return folder


def _digest_of_packed(packed: Path, algorithm: str) -> str:
    entries: dict[str, str] = {}
    with tarfile.open(packed, "r:") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                entries[member.name] = f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"  # type: ignore[arg-type]
    return digest_of_entries(entries, algorithm)


def _changed(source: Path) -> IntegrityError:
    return IntegrityError("A source changed while it was being uploaded.", where=str(source), do_next="Leave it alone, and run again.")


def _disk(where: Path, error: OSError) -> StoreError:
    return StoreError(f"This machine's disk: {error.strerror or error}.", where=str(error.filename or where), do_next="Free some space.")
