"""Checks zips, .npz files and files of torch.save from outside by their headers, before anything is expanded, unpickled or loaded."""

import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edm2core.data.file_kinds import AGAIN, PICKLE, ZIP, beginning, kind_of, unexpected, wrong
from edm2core.errors import InputError

MOST_EXPANSION = 200  # times; deflate reaches 1032 on zeros, real images, arrays and weights seldom 10
UNCHECKED = 16 * 2**20  # bytes that any file may expand to
TORCH_FILE = "a file of torch.save"
OLD_PICKLES = 4  # in a file of torch's older format: magic number, version, machine, content
_INTEGERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"})
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile)
_DAMAGED = (*_UNREADABLE, KeyError, TypeError, MemoryError)


def check_expansion(packed: int, unpacked: int, where: str) -> None:
    """Raises InputError where `packed` bytes would expand to more than UNCHECKED bytes and more than MOST_EXPANSION times."""
    if unpacked > UNCHECKED and unpacked > MOST_EXPANSION * packed:
        bomb = f"It would expand from {packed:,} to {unpacked:,} bytes, more than {MOST_EXPANSION} times: it was left packed."
        raise wrong(where, bomb, "Do not trust this file. If it is yours, pack what is in it without compression.")


def check_zip(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Checks each member of a zip, and all of them together, by the sizes in its directory. Raises InputError for a bomb."""
    unpacked = 0
    for info in members:
        check_expansion(info.compress_size, info.file_size, f"{path}, in it {info.filename!r}")
        unpacked += info.file_size
    check_expansion(path.stat().st_size, unpacked, str(path))


class ArrayHeader(NamedTuple):
    """An array's shape and type, as its header states them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def array_headers(path: Path, do_next: str) -> dict[str, ArrayHeader]:
    """The headers of an .npz's arrays by name. Raises InputError for another kind of file, and for a decompression bomb."""
    if kind_of(beginning(path)) is not ZIP:
        raise unexpected(path, "an .npz", do_next)
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive.infolist(), path)
            return {info.filename.removesuffix(".npy"): _array_header(archive, info) for info in archive.infolist() if not info.is_dir()}
    except _DAMAGED as error:
        raise wrong(path, f"It cannot be read as an array: {error}.", do_next) from error


def load_array(path: Path, name: str | None, do_next: str) -> NDArray[Any]:
    """One array of an .npz whose headers were checked, or that of an .npy, memory-mapped. Raises InputError where it is damaged."""
    try:
        array: NDArray[Any]
        if name is None:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as file:
                array = file[name]
        return array
    except _DAMAGED as error:
        raise wrong(path, f"It cannot be read as an array: {error}.", do_next) from error


def _array_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return ArrayHeader(shape, dtype)


def check_torch(path: Path) -> None:
    """Checks that a file begins as torch.save's do, and that no header announces more data than the file holds.

    Raises InputError where it does not.
    """
    kind = kind_of(beginning(path))
    if kind is None:
        raise wrong(path, f"It does not begin as {TORCH_FILE} does.", "Give the file itself.")
    if kind not in (ZIP, PICKLE):
        raise wrong(path, f"It is {kind.name}, and {TORCH_FILE} was expected.", kind.do_next)
    size, last = path.stat().st_size, 0
    for opcode, argument in opcodes(path):
        if opcode in _INTEGERS:
            last = int(argument)
        elif opcode == "BINPERSID" and last > size:  # a storage; the last integer is how many numbers it has
            raise announces(path, f"a tensor of {last:,} numbers in {size:,} bytes")
        elif opcode == "GLOBAL" and str(argument).endswith(" bytearray"):
            raise announces(path, "a bytearray, which no weights need and which may be of any size")


def opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    """The opcodes and arguments of the pickle in a file of torch.save; all names are in it. Raises InputError for a damaged file."""
    try:
        if kind_of(beginning(path)) is ZIP:
            with zipfile.ZipFile(path) as archive:
                check_zip(archive.infolist(), path)
                pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
                if len(pickles) != 1:
                    raise ValueError("it is a zip archive without weights")
                with archive.open(pickles[0]) as file:
                    yield from _opcodes(file)
        else:
            with path.open("rb") as file:
                for _ in range(OLD_PICKLES - 1):
                    for _ in _opcodes(file):
                        pass
                yield from _opcodes(file)
    except _UNREADABLE as error:
        raise wrong(path, f"It cannot be read as {TORCH_FILE}: {error}.", AGAIN) from error


def _opcodes(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    return ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(file))


def announces(path: Path, content: str) -> InputError:
    """The error for a file that announces more than it holds."""
    return wrong(path, f"It announces {content}: it was not loaded.", "Do not trust this file.")
