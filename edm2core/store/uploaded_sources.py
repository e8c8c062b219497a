"""Sources in the store: users' own data sets, weights and checkpoints, which tasks on any machine can read there.

`sources/<hex>` holds a file's bytes, `sources/<hex>.tar` a folder's files; <hex> is the digest by which the plan names the source.
"""

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from edm2core.data.files import list_folder
from edm2core.data.source import digest_of, digest_of_entries
from edm2core.errors import IntegrityError
from edm2core.plan.manifest import Ref
from edm2core.store.base import Store, is_local, local_disk

PACKED = ".tar"  # the ending of a folder's path: its files are packed into one object


def stored_path(digest: str) -> str:
    """The path of a file with that digest (`<algorithm>:<hex>`) in a store. That of a folder has PACKED added."""
    return f"sources/{digest.partition(':')[2]}"


def source_ref(digest: str) -> Ref:
    """The name of the lease that is held while a source is being uploaded."""
    return Ref("source", digest.partition(":")[2])


def is_stored(store: Store, digest: str) -> bool:
    """Whether the store holds that source."""
    return any(store.stat(stored_path(digest) + ending) is not None for ending in ("", PACKED))


def put(store: Store, digest: str, source: Path, scratch: Path) -> None:
    """Store a file, or a folder packed into one object; `scratch` is where it is packed.

    Raises IntegrityError if its bytes are not those of the digest. A digest may be shortened, as in the name of a published file.
    """
    algorithm, path = digest.partition(":")[0], stored_path(digest)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        given = source
        if source.is_dir():
            given, path = Path(folder) / "folder.tar", path + PACKED
            with local_disk(given):
                _pack(source, given)
                actual = _digest_of_packed(given, algorithm)
        else:
            actual = digest_of(source, algorithm)
        if not actual.startswith(digest):
            what = "A source changed while it was being uploaded."
            raise IntegrityError(what, where=str(source), do_next="Leave it alone, and run again.")
        if given == source and is_local(store):  # a local store shares the file's bytes, and this file is the user's
            given = Path(shutil.copyfile(source, Path(folder) / "file"))
        store.upload(given, path)


def take(store: Store, digest: str, folder: Path) -> Path | None:
    """The source of that digest as a verified file or folder on this machine; None if the store has none.

    Downloads and unpacked files are put into `folder`. Raises IntegrityError if its bytes are not those of the digest.
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
                with local_disk(folder), tarfile.open(source, "r:") as archive:
                    source = folder / "unpacked"
                    source.mkdir(parents=True)
                    _unpack(archive, source)
            except tarfile.TarError as error:
                raise damaged from error
        if not digest_of(source, digest.partition(":")[0]).startswith(digest):
            raise damaged
        return source
    return None


def _pack(folder: Path, packed: Path) -> None:
    files, folders = list_folder(folder)
    with tarfile.open(packed, "w", dereference=True) as archive:
        for name in (*sorted(folders), *files):
            archive.add(folder / name, name, recursive=False)


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the archive's files and folders below a folder. Raises ReadError for a member of another kind or that would lie elsewhere.

    The `filter` of `extractall` would do it, which Python has from 3.11.4 on; Debian 12 has 3.11.2.
    """
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if not (member.isfile() or member.isdir()) or ".." in parts or PurePosixPath(member.name).is_absolute():
            raise tarfile.ReadError(f"{member.name!r} is no file or folder of a source")
        target = folder.joinpath(*parts)
        (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
        if content := archive.extractfile(member):
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def _digest_of_packed(packed: Path, algorithm: str) -> str:
    entries: dict[str, str] = {}
    with tarfile.open(packed, "r:") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                entries[member.name] = f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"  # type: ignore[arg-type]
    return digest_of_entries(entries, algorithm)
