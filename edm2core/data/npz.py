"""Arrays in an .npz from outside: headers are read before anything is expanded, and nothing is unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edm2core.data.bombs import check_zip
from edm2core.data.kind import ZIP, beginning, kind_of, unexpected
from edm2core.errors import InputError

_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, MemoryError)


class Header(NamedTuple):
    """An array's shape and type, as its header states them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def headers(path: Path, do_next: str) -> dict[str, Header]:
    """The headers of an .npz's arrays by name. Raises InputError for another kind of file, and for a decompression bomb."""
    if kind_of(beginning(path)) is not ZIP:
        raise unexpected(path, "an .npz", do_next)
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive.infolist(), path)
            return {info.filename.removesuffix(".npy"): _header(archive, info) for info in archive.infolist() if not info.is_dir()}
    except _DAMAGED as error:
        raise InputError(f"It cannot be read as an array: {error}.", where=str(path), do_next=do_next) from error


def load_array(path: Path, name: str, do_next: str) -> NDArray[Any]:
    """One array of an .npz whose header was found good. Raises InputError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            array: NDArray[Any] = file[name]
            return array
    except _DAMAGED as error:
        raise InputError(f"It cannot be read as an array: {error}.", where=str(path), do_next=do_next) from error


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return Header(shape, dtype)
