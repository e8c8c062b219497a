"""Files of torch.save from outside: what would fill the memory is refused from its headers."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from edm2core.errors import InputError
from edm2core.snapshots.torch_file import load_torch


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_tensors_are_read(tmp_path: Path, zipped: bool) -> None:
    content = {"a": torch.arange(6.0).reshape(2, 3).T, "b": [{"c": torch.tensor(3)}], "step": 10**12}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = load_torch(tmp_path / "a.pth")
    assert torch.equal(found["a"], content["a"])  # type: ignore[arg-type]
    assert found["step"] == 10**12


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_torch(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_stores_fewer_numbers_than_it_has_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save({"EMA": {"a": torch.zeros(1).expand(10**12)}}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "a.pth", "of which it stores fewer")


def test_weights_that_were_compressed_from_nothing_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2**24)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "a.pth").stat().st_size < 2**20
    refused(tmp_path / "a.pth", "would expand")


def test_an_older_file_that_announces_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pth").read_bytes()
    honest, false = pickle.dumps(1000, 2)[2:-1], pickle.dumps(10**9, 2)[2:-1]
    (tmp_path / "a.pth").write_bytes(data.replace(honest, false))
    refused(tmp_path / "a.pth", "numbers in")


def test_a_bytearray_of_any_size_is_refused(tmp_path: Path) -> None:
    class Zeros:
        def __reduce__(self) -> Any:
            return bytearray, (2**40,)

    torch.save({"a": Zeros()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "a bytearray")


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4, 4).to_sparse()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "sparse")


def test_a_file_that_broke_off_is_said_to_be_incomplete(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(5000)}, tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cannot be read as a file of torch\.save: File is not a zip file") as caught:
        load_torch(tmp_path / "x.pth")
    assert "broke off" in caught.value.do_next


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "a pipe")
