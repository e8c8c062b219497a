"""Checks files of torch.save from outside by their headers, without torch and without loading them."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edm2core.data.bombs import check_zip
from edm2core.data.kind import PICKLE, ZIP, beginning, kind_of
from edm2core.errors import InputError

EXPECTED = "a file of torch.save"
OLD_PICKLES = 4  # in a file of the older format: magic number, version, machine, content
_INTEGERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"})


def check_torch(path: Path) -> None:
    """Checks that a file begins as torch.save's do, and that no header announces more data than the file holds. Nothing is loaded.

    Raises InputError where it does not.
    """
    kind = kind_of(beginning(path))
    if kind is None or kind not in (ZIP, PICKLE):
        what = f"It is {kind.name}, and {EXPECTED} was expected" if kind else f"It does not begin as {EXPECTED} does"
        raise InputError(f"{what}.", where=str(path), do_next=kind.do_next if kind else "Give the file itself.")
    size, last = path.stat().st_size, 0
    for opcode, argument in opcodes(path):
        if opcode in _INTEGERS:
            last = int(argument)
        elif opcode == "BINPERSID" and last > size:  # a storage, of so many numbers
            raise announces(path, f"a tensor of {last:,} numbers in {size:,} bytes")
        elif opcode == "GLOBAL" and str(argument).endswith(" bytearray"):
            raise announces(path, "a bytearray, which no weights need and which may be of any size")


def opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    """The opcodes and arguments of the pickle that describes the content, with all names. Raises InputError for a damaged file."""
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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"It cannot be read as {EXPECTED}: {error}.", where=str(path), do_next="Get the file again: a copy or a download broke off."
        ) from error


def _opcodes(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    return ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(file))


def announces(path: Path, what: str) -> InputError:
    """The error for a file that announces more than it holds."""
    return InputError(f"It announces {what}: it was not loaded.", where=str(path), do_next="Do not trust this file.")
