"""One view of a folder, a zip or a tar: members are read one by one by name and never unpacked to disk."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, TypeVar

from edm2core.errors import InputError

MAX_MEMBER = 512 * 2**20  # bytes; the largest published member (CIFAR-100's train) has 155 MB
_AGAIN = "The file is incomplete or altered: get it again from where it came."
_UNREADABLE = (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError)

Archive = TypeVar("Archive", zipfile.ZipFile, tarfile.TarFile)
Info = TypeVar("Info", zipfile.ZipInfo, tarfile.TarInfo)


@dataclass(frozen=True)
class Files:
    """The regular files of a source; names use "/" and never lead out of it. Hidden ones (".…", "__MACOSX") are left out."""

    path: Path
    kind: Literal["folder", "zip", "tar"]
    sizes: dict[str, int]  # name -> bytes, in the order in which they are stored: the order in which a tar is quick to read
    folders: frozenset[str]  # empty ones too
    _read: Callable[[str], bytes]

    def where(self, name: str) -> str:
        """How messages name a member."""
        return str(self.path / name) if self.kind == "folder" else f"{self.path}, in it {name!r}"

    def read(self, name: str) -> bytes:
        """The bytes of one member; safe in several threads for folders and zips. Raises InputError naming it."""
        size = self.sizes[name]
        if size > MAX_MEMBER:
            raise InputError(
                f"A file of {size:,} bytes is more than any image data needs.",
                where=self.where(name),
                do_next=f"The limit is {MAX_MEMBER:,}.",
            )
        try:
            data = self._read(name)
        except _UNREADABLE as error:
            raise InputError(f"It cannot be read: {error}.", where=self.where(name), do_next=_AGAIN) from error
        if len(data) != size:
            raise InputError(f"It has {len(data):,} bytes where {size:,} were announced.", where=self.where(name), do_next=_AGAIN)
        return data


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder, zip or tar (also compressed). Raises InputError for anything else, and for archives whose paths lead out of them."""
    if path.is_dir():
        sizes, folders = list_folder(path)
        yield Files(path, "folder", sizes, folders, lambda name: (path / name).read_bytes())
        return
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(
            f"It cannot be read: {error.strerror}.", where=str(path), do_next="Give an archive or a folder that exists."
        ) from error
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        with _opened(path, lambda: zipfile.ZipFile(path)) as archive:
            yield _zip_files(path, archive)
    else:
        with _opened(path, lambda: tarfile.open(path, "r:*")) as archive:
            yield _tar_files(path, archive)


def list_folder(path: Path) -> tuple[dict[str, int], frozenset[str]]:
    """The sizes of a folder's regular files by relative name, sorted, and its sub-folders; links are followed, as the user made them."""
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    visited: set[str] = set()

    def fail(error: OSError) -> None:
        raise InputError(f"It cannot be read: {error.strerror}.", where=str(error.filename), do_next="Check its permissions.")

    for root, subfolders, names in os.walk(path, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:
            raise InputError(
                "Links lead to this folder more than once.", where=root, do_next="Remove the link, or give a folder without it."
            )
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not _hidden(name)]
        relative = PurePosixPath(Path(root).relative_to(path).as_posix())
        folders.update(str(relative / name) for name in subfolders)
        for name in names:
            if _hidden(name):
                continue
            try:
                found = os.stat(os.path.join(root, name))
            except OSError as error:
                fail(error)
                raise
            if not stat.S_ISREG(found.st_mode):
                raise InputError("It is neither a file nor a folder.", where=os.path.join(root, name), do_next="Remove it from the folder.")
            sizes[str(relative / name)] = found.st_size
    return dict(sorted(sizes.items())), frozenset(folders)


@contextmanager
def _opened(path: Path, opener: Callable[[], Archive]) -> Iterator[Archive]:
    try:
        archive = opener()
    except _UNREADABLE as error:
        raise InputError("It is not a readable zip or tar archive.", where=str(path), do_next=_AGAIN) from error
    with archive:
        yield archive


def _zip_files(path: Path, archive: zipfile.ZipFile) -> Files:
    members: dict[str, zipfile.ZipInfo] = {}
    empty: list[str] = []
    for info in archive.infolist():
        name = _inside(info.filename, path)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _link(path, info.filename)
        if info.is_dir():
            empty.append(name)
        else:
            _add(members, name, info, path)

    def read(name: str) -> bytes:
        with archive.open(members[name]) as member:
            return member.read(members[name].file_size)  # with a bound, so that a false size cannot fill the memory

    return Files(path, "zip", {name: info.file_size for name, info in members.items()}, _all_folders(empty, members), read)


def _tar_files(path: Path, archive: tarfile.TarFile) -> Files:
    members: dict[str, tarfile.TarInfo] = {}
    empty: list[str] = []
    try:
        infos = archive.getmembers()
    except _UNREADABLE as error:
        raise InputError(f"It is not a whole archive: {error}.", where=str(path), do_next=_AGAIN) from error
    for info in infos:
        name = _inside(info.name, path)
        if info.isdir():
            empty.append(name)
        elif info.isreg():
            _add(members, name, info, path)
        else:
            raise _link(path, info.name)

    def read(name: str) -> bytes:
        member = archive.extractfile(members[name])
        if member is None:
            raise _link(path, members[name].name)
        return member.read()

    return Files(path, "tar", {name: info.size for name, info in members.items()}, _all_folders(empty, members), read)


def _inside(name: str, path: Path) -> str:
    """The member's name with "/" between its parts; refuses one that is absolute or climbs, in Windows' spelling too."""
    parsed = PureWindowsPath(name)
    if parsed.anchor or ".." in parsed.parts:
        raise InputError(
            f"The archive holds a path that leads out of it: {name!r}.",
            where=str(path),
            do_next="Do not trust this archive; get it from its publisher.",
        )
    return parsed.as_posix()


def _link(path: Path, name: str) -> InputError:
    return InputError(
        f"The archive holds a link or a special file: {name!r}.",
        where=str(path),
        do_next="Pack the files themselves (tar: with --dereference).",
    )


def _add(members: dict[str, Info], name: str, info: Info, path: Path) -> None:
    if name in members:
        raise InputError(f"The archive holds {name!r} twice.", where=str(path), do_next="Pack it again with each file once.")
    if not any(_hidden(part) for part in name.split("/")):
        members[name] = info


def _all_folders(empty: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    visible = {name for name in empty if not any(_hidden(part) for part in name.split("/"))}
    return frozenset((parents | visible) - {"."})


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"
