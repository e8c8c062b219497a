"""CIFAR-10 and CIFAR-100 from their python archives, whose pickles are read without executing anything in them."""

from __future__ import annotations

import io
import pickle
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edm2core.data.files import Files
from edm2core.data.split import Images, Split, blocks_of
from edm2core.errors import InputError

SHAPE = (3, 32, 32)
# train members, test member, member with the class names; keys of labels and names
_LAYOUT: dict[str, tuple[tuple[str, ...], str, str, bytes, bytes]] = {
    "cifar10": (tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", b"labels", b"label_names"),
    "cifar100": (("train",), "test", "meta", b"fine_labels", b"fine_label_names"),
}


def read_cifar(files: Files, form: str) -> Images:
    """The data set of an archive or an unpacked folder, in the order of its batches. Raises InputError naming the member that is wrong."""
    train, test, meta, label_key, names_key = _LAYOUT[form]
    members = _members(files, (*train, test, meta))
    contents = {wanted: _load(files, name) for name, wanted in members.items()}
    names = {wanted: files.where(name) for name, wanted in members.items()}
    classes = _class_names(contents[meta], names_key, names[meta])
    batches = {wanted: _batch(contents.pop(wanted), label_key, len(classes), names[wanted]) for wanted in (*train, test)}
    return Images(classes, SHAPE, _join([batches[name] for name in train]), _join([batches[test]]))


def _members(files: Files, wanted: tuple[str, ...]) -> dict[str, str]:
    """Member's name -> what it is, in the archive's order, each found once."""
    found = {name: PurePosixPath(name).name for name in files.sizes if PurePosixPath(name).name in wanted}
    for basename in wanted:
        count = list(found.values()).count(basename)
        if count != 1:
            raise InputError(
                f"There is {count or 'no'} member named {basename!r}, which this format has once.",
                where=str(files.path),
                do_next="Check that data.format names this archive's format, or get the archive again.",
            )
    return found


def _class_names(content: dict[bytes, Any], key: bytes, where: str) -> tuple[str, ...]:
    names = content.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise _odd(where, f"holds no class names under {key!r}")
    return tuple(name.decode(errors="replace") for name in names)


def _batch(content: dict[bytes, Any], label_key: bytes, classes: int, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data, labels = content.get(b"data"), content.get(label_key)
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise _odd(where, f"lacks an array b'data' or a list {label_key!r}")
    images = data.value(where)
    if images.ndim != 2 or images.shape != (len(labels), np.prod(SHAPE)):
        raise _odd(where, f"has an array of shape {images.shape} for {len(labels)} labels")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise _odd(where, f"has a label that is not one of its {classes} classes")
    return images.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64)


def _join(batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Split:
    return Split(np.concatenate([labels for _, labels in batches]), (block for images, _ in batches for block in blocks_of(images)))


def _odd(where: str, what: str) -> InputError:
    return InputError(
        f"It is not a batch of the published form: it {what}.", where=where, do_next="Get the archive again from its publisher."
    )


class _Dtype:
    """Stands for numpy.dtype in a pickle: only its name is kept."""

    def __init__(self, name: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, which uint8 does not have."""


class _Array:
    """Stands for numpy.ndarray in a pickle, so that a false shape allocates nothing."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def value(self, where: str) -> NDArray[np.uint8]:
        """The array, a view of the pickle's bytes."""
        match self.state:
            case (int(), tuple(shape), _Dtype(name=b"u1" | "u1"), bool(fortran), bytes(data)) if all(
                type(n) is int and n >= 0 for n in shape
            ):
                array = np.frombuffer(data, np.uint8)
                if array.size == np.prod(shape, dtype=object):
                    return array.reshape(shape, order="F" if fortran else "C")
        raise _odd(where, "has an array that is not one of bytes")


class _Reconstruct:
    __slots__ = ()

    def __call__(self, *_: object) -> _Array:
        return _Array()


class _MakeDtype:
    __slots__ = ()

    def __call__(self, name: object, *_: object) -> _Dtype:
        return _Dtype(name)


# Instances with empty __slots__: a pickle can call them and can set nothing on them.
_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),  # as NumPy 2 writes it, which whoever makes such an archive today has
    ("numpy", "ndarray"): object(),
    ("numpy", "dtype"): _MakeDtype(),
}


class _Refused(Exception):
    """The pickle asks for something that the published archives do not need."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def _load(files: Files, name: str) -> dict[bytes, Any]:
    try:
        content = _Unpickler(io.BytesIO(files.read(name)), encoding="bytes").load()
    except InputError:
        raise
    except _Refused as error:
        raise InputError(
            f"The pickle asks for {str(error)!r}, which could run code; it was not run.",
            where=files.where(name),
            do_next="Do not trust this file; get the archive from its publisher.",
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _odd(files.where(name), f"cannot be unpickled ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise _odd(files.where(name), "is no dictionary")
    return content
