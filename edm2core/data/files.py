"""One view of a folder, a zip or a tar: members are read one by one by name and never unpacked to disk."""

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeVar

from edm2core.data.file_kinds import TAR, ZIP, absent, beginning, kind_of, wrong
from edm2core.data.headers import check_expansion, check_zip
from edm2core.errors import InputError

MAX_MEMBER = 512 * 2**20  # bytes; the largest published member (CIFAR-100's train) has 155 MB
MAX_HEADER = 2**20  # bytes of one name or header in a tar
MAX_XZ = 256 * 2**20  # bytes of memory that unpacking an .xz may take: `xz -9` takes 65 MiB
LEFT_BEHIND = frozenset(
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "recycler", "system volume information"),
        *("@eadir", "@tmp", "@synoeastream", "#recycle", "#snapshot", "~snapshot"),  # Synology; NetApp
        *("@recycle", "@recently-snapshot", "@transcode"),  # QNAP
        *("lost+found", "lost-found", *(f"found.{number:03}" for number in range(10))),  # file systems
        *("picasa.ini", "zbthumbnail.info", "__pycache__"),
    )
)
"""Files and folders that systems leave in folders, lower-case, beside hidden ones: never part of a data set."""
_AGAIN = "The file is incomplete or altered: get it again from where it came."
_NO_ARCHIVE = "Give a folder, a zip or a tar. If it was one, it is altered: get it again from where it came."
_UNREADABLE = (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
_COMPRESSED: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_UTF8, _ENCRYPTED, _UNICODE_PATH = 0x800, 0x1, 0x7075  # flags and extra field of a zip's member (APPNOTE 4.4.4, 4.6.9)

Archive = TypeVar("Archive", zipfile.ZipFile, tarfile.TarFile)
Entry = tuple[str, Any, bool]
"""A member of an archive: its name with "/" between the parts, its zipfile.ZipInfo or tarfile.TarInfo, and whether it is a folder."""


@dataclass(frozen=True)
class Files:
    """The regular files of a source. Their names use "/" and never lead out of it.

    Hidden files (".…") and files that systems leave behind are not among them.
    """

    path: Path
    kind: Literal["folder", "zip", "tar"]
    sizes: dict[str, int]  # name -> bytes, in the order in which they are stored: the order in which a tar is quick to read
    folders: frozenset[str]  # empty ones too
    _head: Callable[[str, int], bytes]
    left_behind: tuple[str, ...] = ()  # files that systems left there (`LEFT_BEHIND`), without hidden ones
    renamed: bool = False  # names of a zip that states no encoding were read as UTF-8, or by its Unicode field
    unstated: tuple[str, ...] = ()  # names in an encoding that the zip does not state

    def where(self, name: str) -> str:
        """A member's name in messages; "" is the source itself."""
        return str(self.path / name) if self.kind == "folder" or not name else _where(self.path, name)

    def wrong(self, name: str, what: str, do_next: str) -> InputError:
        """The error for a member that cannot be used; "" is the source itself."""
        return wrong(self.where(name), what, do_next)

    def head(self, name: str, size: int) -> bytes:
        """At most `size` bytes of a member's beginning. Raises InputError naming it."""
        try:
            return self._head(name, size)
        except _UNREADABLE as error:
            raise self.wrong(name, f"It cannot be read: {error}.", _AGAIN) from error

    def read(self, name: str) -> bytes:
        """The bytes of one member; safe in several threads for folders and zips. Raises InputError naming it."""
        size = self.sizes[name]
        if size > MAX_MEMBER:
            raise self.wrong(name, f"A file of {size:,} bytes is more than any image data needs.", f"The limit is {MAX_MEMBER:,}.")
        data = self.head(name, size + 1)  # one byte more tells a file that grew
        if len(data) != size:
            count = "more" if len(data) > size else f"{len(data):,}"
            raise self.wrong(name, f"It has {count} bytes where {size:,} were announced.", _AGAIN)
        return data


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder, zip or tar (also compressed).

    Raises InputError for an encrypted archive, a decompression bomb, an archive whose paths lead out of it, and any other file; the error
    says what kind of file it is, where that is recognised.
    """
    if path.is_dir():
        listed, folders = list_folder(path)
        sizes = {name: size for name, size in listed.items() if not _is_left_behind(name)}
        shown = frozenset(name for name in folders if not _is_left_behind(name))
        left = tuple(sorted(listed.keys() - sizes.keys()))
        yield Files(path, "folder", sizes, shown, lambda name, size: _start(path / name, size), left)
        return
    start = check_archive(path)
    if kind_of(start) is ZIP:
        with _opened(path, lambda: zipfile.ZipFile(path)) as archive:
            yield _zip_files(path, archive)
        return
    if start.startswith(b"\xfd7zXZ\0"):
        _check_xz(path)
    opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), lambda path: path.open("rb"))
    with opener(path) as unbounded, _Bounded(unbounded) as stream, _opened(path, lambda: tarfile.open(fileobj=stream, mode="r:")) as tar:
        yield _tar_files(path, tar, stream)


def check_archive(path: Path) -> bytes:
    """The first bytes of a file that may be a zip or a tar. Raises InputError for a file that is recognised as something else."""
    start = beginning(path)
    kind = kind_of(start)
    if kind and kind not in (ZIP, TAR) and not start.startswith(tuple(_COMPRESSED)):
        raise wrong(path, f"It is {kind.name}: neither a zip nor a tar archive.", kind.do_next)
    return start


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _check_xz(path: Path) -> None:
    """Raises InputError for an .xz that asks for too much memory."""
    try:
        lzma.LZMADecompressor(memlimit=MAX_XZ).decompress(_start(path, 2**16), 1)
    except lzma.LZMAError as error:
        what = f"To unpack it takes more than {MAX_XZ:,} bytes of memory" if "limit" in str(error) else "It is not a readable .xz"
        raise wrong(path, f"{what}.", "Unpack it by hand, or pack it by `xz -9` at most.") from error


class _Bounded(BufferedReader):
    """A stream that never reads more than `most` bytes at once, since a tar's header may announce a name of gigabytes."""

    most = MAX_HEADER

    def read(self, size: int = -1, /) -> bytes:  # type: ignore[override]  # a tar's reader always says how much
        if not 0 <= size <= self.most:
            raise tarfile.ReadError(f"a header of {size:,} bytes, of which {self.most:,} are sensible")
        return super().read(size)


def list_folder(path: Path) -> tuple[dict[str, int], frozenset[str]]:
    """The sizes of a folder's regular files by relative name, sorted, and its sub-folders. Links are followed.

    Files that systems leave behind are listed too where they can be read, since a folder's digest covers them.
    """
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    visited: set[str] = set()

    def fail(error: OSError) -> None:
        if not _is_left_behind(str(Path(error.filename).relative_to(path))):
            raise wrong(error.filename, f"It cannot be read: {error.strerror}.", "Check its permissions.")

    for root, subfolders, names in os.walk(path, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:
            raise wrong(root, "Links lead to this folder more than once.", "Remove the link, or give a folder without it.")
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not _hidden(name)]
        relative = PurePosixPath(Path(root).relative_to(path).as_posix())
        folders.update(str(relative / name) for name in subfolders)
        for file in (Path(root) / name for name in names if not _hidden(name)):
            name = str(relative / file.name)
            try:
                status = file.stat()
                if stat.S_ISREG(status.st_mode):
                    sizes[name] = status.st_size
                elif not _is_left_behind(name):
                    raise wrong(file, "It is neither a file nor a folder.", "Remove it from the folder.")
            except OSError as error:
                if not _is_left_behind(name):
                    raise absent(file, error) from error
    return dict(sorted(sizes.items())), frozenset(folders)


@contextmanager
def _opened(path: Path, opener: Callable[[], Archive]) -> Iterator[Archive]:
    try:
        archive = opener()
    except _UNREADABLE as error:
        kind = kind_of(beginning(path))
        if kind and kind not in (ZIP, TAR) and isinstance(error, tarfile.ReadError):
            raise wrong(path, f"It is {kind.name}, and what is in it is no tar archive.", kind.do_next) from error
        if kind:
            raise wrong(path, f"It begins as {kind.name} and cannot be read to its end.", _AGAIN) from error
        raise wrong(path, "It is not a readable zip or tar archive.", _NO_ARCHIVE) from error
    with archive:
        yield archive


def _zip_files(path: Path, archive: zipfile.ZipFile) -> Files:
    infos = archive.infolist()
    check_zip(infos, path)
    names = _zip_names(infos)
    unstated = tuple(info.filename for info in infos if names[info.filename] is None)
    # in Shift-JIS a backslash may be half of a character: it separates no folders where "/" does
    halves = {name for name in unstated if "\\" in name} if any("/" in name for name in unstated) else set[str]()
    renamed = bool(halves) or any(true_name not in (None, name) for name, true_name in names.items())

    def entries() -> Iterator[Entry]:
        for info in infos:
            if not info.is_dir():
                _check_packing(info, path)
            name = _inside(names[info.filename] or info.filename, path)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link(path, info.filename)
            yield PurePosixPath(info.filename).as_posix() if info.filename in halves else name, info, info.is_dir()

    members, folders, left_behind = _members(path, entries())

    def head(name: str, size: int) -> bytes:
        with archive.open(members[name]) as member:
            return member.read(min(size, members[name].file_size))  # bounded, so that a false size cannot fill the memory

    sizes = {name: info.file_size for name, info in members.items()}
    return Files(path, "zip", sizes, folders, head, left_behind, renamed, unstated)


def _check_packing(info: zipfile.ZipInfo, path: Path) -> None:
    """Raises InputError for a member that needs a password, or uses an unsupported method of compression."""
    where = _where(path, info.filename)
    if info.flag_bits & _ENCRYPTED:
        raise wrong(where, "The zip is encrypted.", "Unpack it with its password, and give the folder or a zip without one.")
    if info.compress_type not in _METHODS:
        method = f"It is packed by a method (number {info.compress_type}) that is not read."
        raise wrong(where, method, "Unpack it, and give the folder or a zip packed by deflate, the usual method.")


def _zip_names(members: list[zipfile.ZipInfo]) -> dict[str, str | None]:
    """Each member's true name, by the name that zipfile gave it; None where its encoding is not stated.

    Names without a stated encoding are read as UTF-8 only if all of them are valid UTF-8, since bytes of another encoding can look like it.
    """
    names = {info.filename: _stated_name(info) for info in members}
    with suppress(UnicodeDecodeError):
        names |= {name: name.encode("cp437").decode() for name, stated in names.items() if stated is None}  # zipfile decoded them so
    return names


def _stated_name(info: zipfile.ZipInfo) -> str | None:
    """A member's name where the zip states its encoding, by a flag or in its Unicode field."""
    if info.flag_bits & _UTF8 or info.filename.isascii():
        return info.filename
    raw = info.filename.encode("cp437")
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5 and int.from_bytes(field[1:5], "little") == zlib.crc32(raw):
            with suppress(UnicodeDecodeError):
                return field[5:].decode()
    return None


def _tar_files(path: Path, archive: tarfile.TarFile, stream: _Bounded) -> Files:
    packed = path.stat().st_size

    def entries() -> Iterator[Entry]:
        unpacked = 0
        for info in archive:
            unpacked += info.size
            check_expansion(packed, unpacked, _where(path, info.name))
            name = _inside(info.name, path)
            if not (info.isdir() or info.isreg()):
                raise _link(path, info.name)
            yield name, info, info.isdir()

    try:
        members, folders, left_behind = _members(path, entries())
    except _UNREADABLE as error:
        raise wrong(path, f"It is not a whole archive: {error}.", _AGAIN) from error
    stream.most = MAX_MEMBER

    def head(name: str, size: int) -> bytes:
        member = archive.extractfile(members[name])
        if member is None:
            raise _link(path, members[name].name)
        return member.read(size)

    return Files(path, "tar", {name: info.size for name, info in members.items()}, folders, head, left_behind)


def _where(path: Path, name: str) -> str:
    return f"{path}, in it {name!r}"


def _inside(name: str, path: Path) -> str:
    """The member's name with "/" between its parts. Raises InputError if it is absolute or climbs by "..", in Windows' spelling too."""
    parsed = PureWindowsPath(name)
    if parsed.anchor or ".." in parsed.parts:
        raise wrong(
            path, f"The archive holds a path that leads out of it: {name!r}.", "Do not trust this archive; get it from its publisher."
        )
    return parsed.as_posix()


def _link(path: Path, name: str) -> InputError:
    return wrong(path, f"The archive holds a link or a special file: {name!r}.", "Pack the files themselves (tar: with --dereference).")


def _members(path: Path, entries: Iterable[Entry]) -> tuple[dict[str, Any], frozenset[str], tuple[str, ...]]:
    """The files of an archive by name, its folders, and the files that systems left behind in it. Hidden ones are left out."""
    members: dict[str, Any] = {}
    folders: set[str] = set()
    left_behind: list[str] = []
    for name, info, is_folder in entries:
        if name in members and not is_folder:
            raise wrong(path, f"The archive holds {name!r} twice.", "Pack it again with each file once.")
        if any(_hidden(part) for part in name.split("/")):
            continue
        if _is_left_behind(name):
            left_behind += [] if is_folder else [name]
        elif is_folder:
            folders.add(name)
        else:
            members[name] = info
    folders.update(str(parent) for name in members for parent in PurePosixPath(name).parents)
    return members, frozenset(folders - {"."}), tuple(left_behind)


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _is_left_behind(name: str) -> bool:
    """Whether a file or folder, by its path, is one that systems leave behind, or lies in one."""
    return any(part.lower() in LEFT_BEHIND or part.startswith("SYNOFILE_THUMB") for part in name.split("/"))
