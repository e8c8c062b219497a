"""Recognises a file by its first bytes, so that an error can name what was brought by mistake; and the errors about a file."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from edm2core.errors import InputError

BEGINNING = 512  # bytes at a file's start, enough to recognise its kind


class Kind(NamedTuple):
    """What a file is, to follow "It is", and what to do where another kind was expected."""

    name: str
    do_next: str


AGAIN = "Get the file again: a copy or a download broke off."
_UNPACK = "Unpack it, and give what was in it."
EMPTY = Kind("an empty file, of zero bytes", AGAIN)
_LFS = Kind("a Git LFS pointer, not the file that it stands for", "Run `git lfs pull` where it was cloned, or download the file itself.")
_ANNEX = Kind("a git-annex pointer, not the file that it stands for", "Run `git annex get` where it was cloned.")
PAGE = Kind("a web page, not the file itself", "Open it in a browser: it may ask to log in, or hold the address of the file itself.")
_ANSWER = Kind("a server's answer in XML, not the file itself", "Read it: it says why the server refused.")
_JSON = Kind("a text in JSON", "Read it: it may be a server's answer that says why it refused.")
ZIP, TAR = Kind("a zip archive", _UNPACK), Kind("a tar archive", _UNPACK)
PICKLE = Kind("a Python pickle", "Save its tensors or arrays in the expected form.")

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs", _LFS),
    (b"/annex/objects/", _ANNEX),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"PK\x07\x08", Kind("one part of a zip in several", "Unpack all parts together, and give the folder or one zip of it.")),
    (b"\x1f\x8b", Kind("compressed by gzip", "Unpack it with `gunzip`.")),
    (b"BZh", Kind("compressed by bzip2", "Unpack it with `bunzip2`.")),
    (b"\xfd7zXZ\0", Kind("compressed by xz", "Unpack it with `unxz`.")),
    (b"\x28\xb5\x2f\xfd", Kind("compressed by zstd", "Unpack it with `unzstd`.")),
    (b"Rar!\x1a\x07", Kind("a RAR archive", "Unpack it with `unrar x`, and give the folder or a zip of it.")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", "Unpack it with `7z x`, and give the folder or a zip of it.")),
    (b"\x93NUMPY", Kind("an array in .npy", _UNPACK)),
    (b"\x89HDF\r\n", Kind("an HDF5 file", "Save what it holds in the expected form.")),
    (b"PAR1", Kind("a Parquet file", "Save what it holds in the expected form.")),
    (b"SQLite format 3\0", Kind("an SQLite database", "Save what it holds in the expected form.")),
    (b"%PDF-", Kind("a PDF", "Give the file itself.")),
    (b"\x00\x05\x16\x07", Kind("what macOS writes beside a file on other disks (AppleDouble)", "Give the file whose name lacks the ._")),
    (b"\x89PNG", Kind("a PNG image", "Give the file or folder that was meant.")),
    (b"\xff\xd8\xff", Kind("a JPEG image", "Give the file or folder that was meant.")),
    (b"GIF8", Kind("a GIF image", "Give the file or folder that was meant.")),
    (b"\xed\xab\xee\xdb", Kind("an RPM package", _UNPACK)),
    (b"\x7fELF", Kind("a program", "Give the file that was meant.")),
    (b"<?xml", _ANSWER),
    (b"<error>", _ANSWER),
    *((b"\x80%c" % protocol, PICKLE) for protocol in range(2, 6)),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<meta", b"<title")
_HEIF = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"heim", b"heis", b"hevc")

INSTEAD = (EMPTY, _LFS, _ANNEX, PAGE, _ANSWER, _JSON)
"""Stand-ins that a failed download or checkout leaves in place of the file that the user meant."""


def kind_of(start: bytes) -> Kind | None:
    """The kind of file that begins with these bytes; None if it is not recognised."""
    if not start:
        return EMPTY
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = text[:64].lower()
    if lower.startswith(_PAGES) or (lower.startswith((b"<?xml", b"<!--")) and b"<html" in text.lower()):
        return PAGE
    for magic, kind in _MAGIC:
        if start.startswith(magic) or (magic[:1] == b"<" and lower.startswith(magic)):
            return kind
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF:
        return Kind("an image in HEIF or AVIF, which is not read", "Convert it to PNG or JPEG, such as by `mogrify -format png`.")
    if start[257:262] == b"ustar":
        return TAR
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return Kind("weights in safetensors", "Save its tensors in the expected form.")
    if text[:1] in (b"{", b"["):
        return _JSON
    if not start.strip(b"\0"):
        return Kind("nothing but zero bytes, as a broken copy leaves", AGAIN)
    return None


def wrong(where: Path | str, what: str, do_next: str) -> InputError:
    """The error for a file that cannot be used: `what` is one sentence about it."""
    return InputError(what, where=str(where), do_next=do_next)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file, to be read. Raises InputError as `regular` does, and where it cannot be read."""
    regular(path)
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise absent(path, error) from error


def beginning(path: Path) -> bytes:
    """The first bytes of a file. Raises InputError as `opened` does."""
    with opened(path) as file:
        return file.read(BEGINNING)


def unexpected(path: Path, expected: str, do_next: str) -> InputError:
    """The error for a file that is not `expected` ("an .npz"): it says what the file is, where that is recognised."""
    if kind := kind_of(beginning(path)):
        return wrong(path, f"It is {kind.name}, and {expected} was expected.", f"{kind.do_next} {do_next}")
    return wrong(path, f"It is not {expected}.", do_next)


def regular(path: Path) -> None:
    """Raises InputError unless the path is a regular file, which can be read twice; not for example a folder, a pipe or a device."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise absent(path, error) from error
    if not stat.S_ISREG(mode):
        pipe = "a pipe (FIFO), which can be read only once"
        special = "a folder" if stat.S_ISDIR(mode) else pipe if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise wrong(path, f"{path} is {special}, not a file.", "Give the path of a file on disk.")


def absent(path: Path, error: OSError) -> InputError:
    """The error for a path that cannot be opened; it names a link whose target is missing."""
    if path.is_symlink():
        broken = f"It is a link to {os.readlink(path)!r}, which cannot be reached: {error.strerror}."
        return wrong(path, broken, "Correct or remove the link, or bring its target back.")
    if isinstance(error, FileNotFoundError):
        return wrong(path, f"There is no file {path}.", "Check the path.")
    return wrong(path, f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.")
