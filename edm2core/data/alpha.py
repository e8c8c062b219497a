"""Tells from an image file's header whether it has an alpha channel, by the formats' specifications and without Pillow."""

import struct
from collections.abc import Iterator

from edm2core.data.file_kinds import INSTEAD, kind_of
from edm2core.data.files import Files

HEAD = 4096  # bytes of a file that are read first; the whole file is read only if its header is longer
_EXTRA_SAMPLES = 338  # TIFF 6.0, section 18


def alpha_of(files: Files, name: str) -> bool:
    """Whether the named file has an alpha channel or a transparent colour; False for a truncated image, which decoding refuses.

    Raises InputError for a file that cannot be read, and for a stand-in such as a Git LFS pointer.
    """
    start = files.head(name, HEAD)
    if (kind := kind_of(start)) in INSTEAD:
        raise files.wrong(name, f"The image cannot be used: it is {kind.name}.", kind.do_next)
    try:
        alpha = _has_alpha(start)
        return _has_alpha(files.read(name)) is True if alpha is None and files.sizes[name] > len(start) else alpha is True
    except (struct.error, IndexError):
        return False


def _has_alpha(data: bytes) -> bool | None:
    """None if the header is longer than these bytes."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return (data[12:16] == b"VP8X" and bool(data[20] & 0x10)) or (data[12:16] == b"VP8L" and bool(data[24] & 0x10))
    if data.startswith((b"II*\0", b"MM\0*")):
        return _tiff(data)
    if data.startswith(b"BM"):
        (size,), (bits, compression) = struct.unpack_from("<I", data, 14), struct.unpack_from("<HI", data, 28)
        return bool(size >= 56 and bits == 32 and compression == 3 and any(data[66:70]))
    return False


def _png(data: bytes) -> bool | None:
    """A colour type with alpha, or a tRNS chunk, which stands before the first IDAT."""
    if data[25] in (4, 6):
        return True
    kinds = (kind for kind, _ in png_chunks(data) if kind in (b"tRNS", b"IDAT", b"IEND"))
    first = next(kinds, None)
    return None if first is None else first == b"tRNS"


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG that begin in these bytes: their kind, and all of their bytes."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + 12 + length]
        at += 12 + length


def _gif(data: bytes) -> bool | None:
    """A transparent colour in a graphic control extension before the first image."""
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while at + 4 <= len(data):
        if data[at] != 0x21:  # no extension: the image
            return False
        if data[at + 1] == 0xF9 and data[at + 3] & 1:
            return True
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return None


def _tiff(data: bytes) -> bool | None:
    """Extra samples, of which alpha is one kind."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    if at + 2 > len(data):
        return None
    (count,) = struct.unpack_from(f"{order}H", data, at)
    if at + 2 + 12 * count > len(data):
        return None
    return any(struct.unpack_from(f"{order}H", data, at + 2 + 12 * entry)[0] == _EXTRA_SAMPLES for entry in range(count))
