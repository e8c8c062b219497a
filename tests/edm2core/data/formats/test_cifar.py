import datetime
import io
import os
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edm2core.config.settings import DataSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.errors import InputError


class Raw(bytes):
    """Opcodes that go into a pickle as they are."""


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 wrote it: byte strings as BINSTRING, arrays through numpy.core.multiarray."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    match value:
        case Raw():
            return bytes(value)
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case bytes():
            return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_opcodes, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_opcodes(key) + _opcodes(item) for key, item in value.items()) + b"u"
        case np.ndarray():
            name = value.dtype.str[1:].encode()
            dtype = b"cnumpy\ndtype\n" + _opcodes((name, 0, 1)) + b"R" + _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
            fortran = value.flags.f_contiguous and not value.flags.c_contiguous
            made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes(b"b") + b"tR"
            return made + _opcodes((1, value.shape, Raw(dtype), fortran, value.tobytes("F" if fortran else "C"))) + b"b"
    raise TypeError(type(value))


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cifar10(n: int = 4, **changes: bytes | None) -> dict[str, bytes]:
    """The members of a small archive in the published layout and order; a change of None leaves a member out."""
    generator = np.random.default_rng(0)
    members = {"batches.meta": python2_pickle({b"num_cases_per_batch": n, b"label_names": [b"cat", b"dog"], b"num_vis": 3072})}
    for name in ("data_batch_4", "test_batch", "data_batch_3", "data_batch_5", "data_batch_1", "data_batch_2"):
        data = generator.integers(0, 256, (n, 3072), dtype=np.uint8)
        data[:, 0] = int(name[-1]) if name[-1].isdigit() else 9
        members[name] = python2_pickle({b"batch_label": b"a", b"labels": [0, 1] * (n // 2), b"data": data, b"filenames": [b"x.png"] * n})
    members |= changes  # type: ignore[arg-type]
    return {f"cifar-10-batches-py/{name}": data for name, data in members.items() if data is not None}


def prepared(tmp_path: Path, members: dict[str, bytes], form: str = "cifar10") -> Any:
    source = tar(tmp_path / "cifar.tar.gz", members)
    prepare_data(DataSettings(format=form, source=str(source)), source, tmp_path / "out")  # type: ignore[arg-type]
    return load_prepared(tmp_path / "out")


def test_cifar10_keeps_the_batches_order_and_pixels(tmp_path: Path) -> None:
    data = prepared(tmp_path, cifar10())
    assert data.train_images.shape == (20, 3, 32, 32)
    assert data.train_images[::4, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert data.test_images[:, 0, 0, 0].tolist() == [9] * 4
    assert data.train_labels.tolist() == [0, 1] * 10
    assert data.classes == ("cat", "dog")
    generator = np.random.default_rng(0)
    first = generator.integers(0, 256, (4, 3072), dtype=np.uint8)  # data_batch_4
    assert np.array_equal(np.asarray(data.train_images[12:16]).reshape(4, 3072)[:, 1:], first[:, 1:])


def test_cifar100_uses_the_fine_labels(tmp_path: Path) -> None:
    images = np.arange(3 * 3072, dtype=np.uint32).astype(np.uint8).reshape(3, 3072)
    batch = {b"filenames": [b"x"] * 3, b"fine_labels": [2, 0, 1], b"coarse_labels": [0, 0, 0], b"data": np.asfortranarray(images)}
    members = {
        "cifar-100-python/meta": python2_pickle({b"fine_label_names": [b"apple", b"bear", b"cup"], b"coarse_label_names": [b"thing"]}),
        "cifar-100-python/test": python2_pickle(batch),
        "cifar-100-python/train": python2_pickle(batch),
    }
    data = prepared(tmp_path, members, "cifar100")
    assert data.train_labels.tolist() == [2, 0, 1]
    assert data.classes == ("apple", "bear", "cup")
    assert np.array_equal(np.asarray(data.test_images).reshape(3, -1), images)


def test_an_unpacked_folder_serves_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, data in cifar10().items():
        (tmp_path / name).write_bytes(data)
    info = prepare_data(DataSettings(format="cifar10", source=str(folder)), folder, tmp_path / "out")
    assert info["counts"]["train"] == 20


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cposix\nsystem\n(U\x0btouch ownedtR",
        b"c__builtin__\neval\n(U\x011tR",
        b"cnumpy\nload\n(U\x01xtR",
        b"ios\nsystem\n",
        b"c__builtin__\ngetattr\n(U\x011tR",
        b"csubprocess\nPopen\n(U\x011tR",
    ],
)
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opcodes: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"could run code(.|\n)*data_batch_2"):
        prepared(tmp_path, cifar10(data_batch_2=b"\x80\x02" + (b"(" if opcodes[:1] == b"i" else b"") + opcodes + b"."))
    assert sorted(os.listdir(tmp_path)) == ["cifar.tar.gz"]


def test_a_pickle_cannot_alter_the_reader(tmp_path: Path) -> None:
    build = b"cnumpy.core.multiarray\n_reconstruct\n" + _opcodes({b"__call__": b"x"}) + b"b."
    with pytest.raises(InputError, match="cannot be unpickled"):
        prepared(tmp_path, cifar10(data_batch_1=b"\x80\x02" + build))


@pytest.mark.parametrize("suffix", [".bin", ".mat"])
def test_another_version_of_the_archive_is_told_which_is_read(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="no member named") as caught:
        prepared(tmp_path, {f"cifar-10-batches/{name}{suffix}": b"x" for name in ("data_batch_1", "test_batch", "batches.meta")})
    assert caught.value.do_next == f"It holds {suffix} files: get the archive of the python version, which is read."


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no member named 'data_batch_3'(.|\n)*cifar\.tar\.gz"):
        prepared(tmp_path, cifar10(data_batch_3=None))


IMAGES = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"labels": [0, 1]}, "lacks an array"),
        ({b"data": IMAGES, b"fine_labels": [0, 1]}, "lacks an array"),
        ({b"data": IMAGES, b"labels": [0]}, "for 1 labels"),
        ({b"data": IMAGES[:, 1:], b"labels": [0, 1]}, "has an array of shape"),
        ({b"data": IMAGES, b"labels": [0, 2]}, "not one of its 2 classes"),
        ({b"data": IMAGES, b"labels": [0, -1]}, "not one of its 2 classes"),
        ({b"data": IMAGES.astype(np.float32), b"labels": [0, 1]}, "not one of bytes"),
        ([1, 2], "no dictionary"),
    ],
)
def test_a_batch_of_another_form_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"{message}(.|\n)*test_batch"):
        prepared(tmp_path, cifar10(test_batch=python2_pickle(content)))


def test_a_false_shape_allocates_nothing(tmp_path: Path) -> None:
    honest = python2_pickle({b"data": IMAGES, b"labels": [0, 1]})
    false = honest.replace(
        b"J" + struct.pack("<i", 2) + b"J" + struct.pack("<i", 3072), b"J" + struct.pack("<i", 2**31 - 1) + b"J" + struct.pack("<i", 3072)
    )
    assert false != honest
    with pytest.raises(InputError, match="not one of bytes"):
        prepared(tmp_path, cifar10(test_batch=false))


def test_a_truncated_pickle_is_named(tmp_path: Path) -> None:
    members = cifar10()
    with pytest.raises(InputError, match=r"cannot be unpickled(.|\n)*data_batch_5"):
        prepared(tmp_path, cifar10(data_batch_5=members["cifar-10-batches-py/data_batch_5"][:-20]))


def test_nothing_remains_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a batch of the published form"):
        prepared(tmp_path, cifar10(test_batch=b"rubbish"))
    assert sorted(os.listdir(tmp_path)) == ["cifar.tar.gz"]


def again(protocol: int, batch: Any, names: Any, container: type = dict) -> dict[str, bytes]:
    members = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    pickled = pickle.dumps(container(batch), protocol)
    return {f"b/{name}": pickled for name in members} | {"b/batches.meta": pickle.dumps(container(names), protocol)}


TODAY = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
NAMES = [f"class{number}" for number in range(10)]
LABELS = [
    [3, 7],
    (3, 7),
    [np.int64(3), np.int64(7)],
    [np.uint8(3), np.int32(7)],
    np.array([3, 7]),
    np.array([3, 7], np.uint8),
    np.array([3, 7], ">i4"),
    np.array([[3], [7]]),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: f"{type(labels).__name__} of {np.asarray(labels).dtype}")
def test_an_archive_that_was_packed_again_is_read(tmp_path: Path, protocol: int, labels: Any) -> None:
    for number, (content, names) in enumerate(
        [
            ({"data": TODAY, "labels": labels, "filenames": ["", "ü"]}, {"label_names": NAMES}),
            ({b"data": TODAY.reshape(2, 3, 32, 32), b"labels": labels, b"x": b"\xff"}, {b"label_names": [n.encode() for n in NAMES]}),
            ({"data": np.asfortranarray(TODAY), "labels": labels, "x": b""}, {"label_names": tuple(NAMES)}),
            ({"data": TODAY, "labels": labels}, {"label_names": np.array(NAMES)}),
            ({"data": TODAY, "labels": labels}, {"label_names": list(np.array(NAMES))}),
            (
                {"data": TODAY.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1).copy(), "labels": labels, "x": bytearray(9)},
                {"label_names": NAMES},
            ),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        data = prepared(tmp_path / str(number), again(protocol, content, names, OrderedDict if number == 2 else dict))
        assert np.array_equal(data.train_images[:2], TODAY.reshape(2, 3, 32, 32))
        assert (list(data.train_labels[:2]), data.classes) == ([3, 7], tuple(NAMES))


@pytest.mark.parametrize(
    "harmless", [np.float64(3), datetime.date(2026, 1, 1), np.array([0.5]), {1, 2}, 1j, range(3), SimpleNamespace(a=1)]
)
@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_label_of_a_wrong_type_is_not_said_to_run_code(tmp_path: Path, protocol: int, harmless: object) -> None:
    batch = {"data": TODAY, "labels": [harmless, 1] if not isinstance(harmless, np.ndarray) else harmless}
    with pytest.raises(InputError, match="not a batch of the published form") as caught:
        prepared(tmp_path, again(protocol, batch, {"label_names": NAMES}))
    assert "run code" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("size", [2**40, "x" * 10])
def test_bytes_of_a_number_are_not_so_many_zeros(tmp_path: Path, protocol: int, size: Any) -> None:
    class Zeros:
        def __reduce__(self) -> Any:
            return bytes, (size,) if isinstance(size, int) else (size, "utf-7")

    with pytest.raises(InputError, match="cannot be unpickled"):
        prepared(tmp_path, again(protocol, {"data": Zeros(), "labels": [1]}, {"label_names": NAMES}))


def test_a_few_bytes_do_not_make_the_unpickler_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numbers its object"):
        prepared(tmp_path, cifar10(data_batch_1=b"\x80\x02}r\xff\xff\xff\x7f."))
