"""CIFAR-10 and CIFAR-100 from their python archives, whose pickles are read without executing anything in them."""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edm2core.config.settings import DataSettings
from edm2core.data.file_kinds import wrong
from edm2core.data.files import Files
from edm2core.data.split import Images, Split, blocks_of
from edm2core.errors import InputError
from edm2core.words import printable

SHAPE = (3, 32, 32)
# names of the training members, the test member and the member with the class names; keys of labels and of class names
_LAYOUT: dict[str, tuple[tuple[str, ...], str, str, bytes, bytes]] = {
    "cifar10": (tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", b"labels", b"label_names"),
    "cifar100": (("train",), "test", "meta", b"fine_labels", b"fine_label_names"),
}


def read_cifar(files: Files, settings: DataSettings) -> Images:
    """The data set of an archive or an unpacked folder, in the order of its batches. Raises InputError naming the member that is wrong."""
    train, test, meta, label_key, names_key = _LAYOUT[settings.format]
    members = _members(files, (*train, test, meta))
    contents = {basename: _load(files, name) for name, basename in members.items()}
    names = {basename: files.where(name) for name, basename in members.items()}
    classes = _class_names(contents[meta], names_key, names[meta])
    batches = {basename: _batch(contents.pop(basename), label_key, len(classes), names[basename]) for basename in (*train, test)}
    return Images(classes, SHAPE, _join([batches[name] for name in train]), _join([batches[test]]))


def _members(files: Files, wanted: tuple[str, ...]) -> dict[str, str]:
    """Full name → base name of the wanted members, in the archive's order. Raises InputError unless each is there once."""
    members = {name: PurePosixPath(name).name for name in files.sizes if PurePosixPath(name).name in wanted}
    for basename in wanted:
        count = list(members.values()).count(basename)
        if count != 1:
            others = {PurePosixPath(name).suffix for name in files.sizes} & {".bin", ".mat"}
            do_next = "Check that data.format names this archive's format, or get the archive again."
            if others:
                do_next = f"It holds {others.pop()} files: get the archive of the python version, which is read."
            raise files.wrong("", f"There is {count or 'no'} member named {basename!r}, which this format has once.", do_next)
    return members


def _class_names(content: dict[bytes, Any], key: bytes, where: str) -> tuple[str, ...]:
    names = content.get(key)
    if isinstance(names, _Array):
        names = names.value(where, _TEXTS).tolist()
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, bytes | str) for name in names):
        raise _odd(where, f"holds no class names under {key!r}")
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else printable(name) for name in names)


def _batch(content: dict[bytes, Any], label_key: bytes, classes: int, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data, labels = content.get(b"data"), content.get(label_key)
    if isinstance(labels, _Array):
        array = labels.value(where, _INTEGERS)
        labels = (array[:, 0] if array.shape[1:] == (1,) else array).tolist()
    if not isinstance(data, _Array) or not isinstance(labels, list | tuple):
        raise _odd(where, f"lacks an array b'data' or a list {label_key!r}")
    images: NDArray[np.uint8] = data.value(where, ("u1",)).astype(np.uint8, copy=False)
    if images.shape == (len(labels), *SHAPE[1:], SHAPE[0]):
        images = images.transpose(0, 3, 1, 2)
    if images.shape not in ((len(labels), np.prod(SHAPE)), (len(labels), *SHAPE)):
        raise _odd(where, f"has an array of shape {images.shape} for {len(labels)} labels")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise _odd(where, f"has a label that is not one of its {classes} classes")
    return images.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64)


def _join(batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Split:
    return Split(np.concatenate([labels for _, labels in batches]), (block for images, _ in batches for block in blocks_of(images)))


def _odd(where: str, difference: str) -> InputError:
    """The error for a member that is not as published; `difference` follows "it"."""
    return wrong(where, f"It is not a batch of the published form: it {difference}.", "Get the archive again from its publisher.")


class _Dtype:
    """Stands for numpy.dtype in a pickle. It keeps the type's name and byte order alone."""

    def __init__(self, name: object) -> None:
        self.name, self.order = name.decode("latin1") if isinstance(name, bytes) else name, "|"

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), (bytes() | str()) as order, *_):
                self.order = order.decode("latin1") if isinstance(order, bytes) else order

    def of(self, kinds: Collection[str], data: bytes | bytearray) -> NDArray[Any]:
        """The numbers or texts in these bytes. Raises ValueError where they are of none of these kinds."""
        if not any(re.fullmatch(kind, str(self.name)) for kind in kinds) or self.order not in ("|", "<", ">", "="):
            raise ValueError(f"{self.name} is none of {', '.join(kinds)}")
        return np.frombuffer(data, np.dtype(f"{self.order}{self.name}"))


class _Array:
    """Stands for numpy.ndarray in a pickle, so that a false shape allocates nothing."""

    def __init__(self, state: object = None) -> None:
        self.state = state

    def __setstate__(self, state: object) -> None:
        self.state = state

    def value(self, where: str, kinds: tuple[str, ...]) -> NDArray[Any]:
        """The array, a view of the pickle's bytes, of numbers of one of these kinds."""
        match self.state:
            case (int(), tuple(shape), _Dtype() as dtype, bool(fortran), (bytes() | bytearray()) as data) if all(
                type(n) is int and n >= 0 for n in shape
            ):
                with suppress(ValueError):  # of another kind
                    array = dtype.of(kinds, data)
                    if array.size == np.prod(shape, dtype=object):
                        return array.reshape(shape, order="F" if fortran else "C")
        raise _odd(where, f"has an array that is not one of {_KINDS[kinds]}")


def _stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as an object without attributes: a pickle can call it, and set nothing on it."""
    made: Callable[..., Any] = type(function.__name__, (), {"__slots__": (), "__call__": staticmethod(function)})()
    return made


@_stand_in
def _scalar(dtype: object, data: object = None) -> int | str | bytes:
    """numpy's constructor of a single number or text, such as np.int64(3)."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise ValueError("a number in it is not stored as bytes with a type")
    value: int | str | bytes = dtype.of((*_INTEGERS, *_TEXTS), data)[0].item()
    return value


@_stand_in
def _encode(text: object, encoding: object = "latin1") -> bytes:
    """_codecs.encode: protocols below 3 store bytes as a call of it."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1", "latin-1", b"latin-1"):
        raise ValueError("bytes in it are not stored as latin-1 text")
    return text.encode("latin1")


@_stand_in
def _bytes(content: object = b"", encoding: object = "latin1") -> bytes:
    """bytes and bytearray. They take bytes or latin-1 text alone: a number would make that many zeros."""
    return bytes(content) if isinstance(content, bytes | bytearray) else bytes(_encode(content, encoding))


_INTEGERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")
_TEXTS = (r"[US]\d+",)
_KINDS = {("u1",): "bytes", _INTEGERS: "integers", _TEXTS: "texts"}
_ALLOWED: dict[tuple[str, str], object] = {  # what a pickle may ask for, and what it gets
    **{
        (f"{package}.{name}", function): stand_in
        for package in ("numpy.core", "numpy._core")  # of NumPy 1 and 2
        for name, function, stand_in in (
            ("multiarray", "_reconstruct", _stand_in(lambda *_: _Array())),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _stand_in(lambda data, dtype, shape, order, *_: _Array((1, shape, dtype, order == "F", data)))),
        )
    },
    ("numpy", "ndarray"): object(),
    ("numpy", "dtype"): _stand_in(lambda name, *_: _Dtype(name)),
    ("_codecs", "encode"): _encode,
    **{(builtins, name): _bytes for builtins in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    ("collections", "OrderedDict"): _stand_in(lambda: {}),
}
_HARMLESS = re.compile(
    r"(builtins|__builtin__)\.(set|frozenset|complex|x?range|slice|dict|list|tuple|int|long|float|bool|str|unicode|object)|"
    r"numpy\.(u?int|float|complex|bool|str|bytes|datetime|timedelta)\w*|numpy\.(ma\.core|matrixlib\.defmatrix|_?core\.records|rec)\.\w+|"
    r"collections\.\w+|datetime\.\w+|pathlib\.\w*Path|decimal\.Decimal|fractions\.Fraction|uuid\.UUID|types\.SimpleNamespace|"
    r"torch\._utils\._rebuild_\w+|torch\.\w*Storage|torch\.storage\.\w+|PIL\.\w+\.\w+|pandas\.[\w.]+"
)
"""Names that build plain data and are in no published archive. A pickle that asks for them is called damaged, not an attack."""


class _Refused(Exception):
    """The pickle asks for something that archives of these formats do not need."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def _load(files: Files, name: str) -> dict[bytes, Any]:
    where, data = files.where(name), files.read(name)
    try:
        _check_memo(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _Refused as error:
        if _HARMLESS.fullmatch(str(error)):
            raise _odd(where, f"holds a {str(error)!r}, where numbers, lists and NumPy's arrays of them are read") from error
        refusal = f"The pickle asks for {str(error)!r}, which could run code; it was not run."
        raise wrong(where, refusal, "Do not trust this file; get the archive from its publisher.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _odd(where, f"cannot be unpickled ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise _odd(where, "is no dictionary")
    return {key.encode(errors="replace") if isinstance(key, str) else key: value for key, value in content.items()}


def _check_memo(data: bytes) -> None:
    """Raises ValueError for a truncated pickle, and for one whose objects skip numbers: a few bytes would make a memo of gigabytes."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > number:
            raise ValueError(f"it numbers its object {number} as {argument}")
