"""Recognises decompression bombs by their headers, without expanding anything."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from edm2core.errors import InputError

MOST_EXPANSION = 200  # times; deflate reaches 1032 on zeros, real images, arrays and weights seldom 10
UNCHECKED = 16 * 2**20  # bytes that any file may expand to


def check_expansion(packed: int, unpacked: int, where: str) -> None:
    """Raises InputError where `packed` bytes would expand to more than UNCHECKED bytes and more than MOST_EXPANSION times."""
    if unpacked > UNCHECKED and unpacked > MOST_EXPANSION * packed:
        raise InputError(
            f"It would expand from {packed:,} to {unpacked:,} bytes, more than {MOST_EXPANSION} times: it was left packed.",
            where=where,
            do_next="Do not trust this file. If it is yours, pack what is in it without compression.",
        )


def check_zip(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Checks each member of a zip, and all of them together, by the sizes in its directory. Raises InputError for a bomb."""
    unpacked = 0
    for info in members:
        check_expansion(info.compress_size, info.file_size, f"{path}, in it {info.filename!r}")
        unpacked += info.file_size
    check_expansion(path.stat().st_size, unpacked, str(path))
