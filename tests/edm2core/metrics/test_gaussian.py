import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edm2core.errors import InputError
from edm2core.metrics.gaussian import read_npz

GOOD = {"mu": np.arange(3.0), "sigma": np.diag([1.0, 2.0, 3.0]) + 0.1}


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "stats.npz", **arrays)
    return folder / "stats.npz"


def test_means_and_covariances_of_either_precision_are_read(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        found = read_npz(saved(tmp_path, **{name: array.astype(dtype) for name, array in GOOD.items()}), 50, 3)
        np.testing.assert_allclose(found.mean, GOOD["mu"])
        np.testing.assert_allclose(found.covariance, GOOD["sigma"], rtol=1e-6)
        assert (found.n, found.covariance.dtype) == (50, np.float64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mu": np.arange(4.0)}, "these features have 3 dimensions"),
        ({"sigma": np.eye(2)}, "these features have 3 dimensions"),
        ({"mu": np.array([0, np.nan, 1])}, "not finite"),
        ({"sigma": np.diag([1.0, -1.0, 1.0])}, "no covariance"),
        ({"sigma": np.eye(3) + np.triu(np.ones((3, 3)))}, "no covariance"),
        ({"sigma": np.zeros((3, 3))}, "no covariance"),
        ({"mu": np.array([None, 1, 2], dtype=object)}, "no statistics"),
    ],
)
def test_a_file_that_holds_no_statistics_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_npz(saved(tmp_path, **GOOD | change), 50, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"PK\3\4 nothing", "cannot be read as an array"),
        (b"\x93NUMPY", "an array in .npy"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"<html>", "a web page"),
        (b"\x80\x04\x95", "a Python pickle"),
    ],
)
def test_other_files_are_called_by_their_names(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_npz(tmp_path / "file.npz", 50, 3)


def test_files_without_statistics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no statistics: there is no mu and no sigma"):
        read_npz(saved(tmp_path, mean=GOOD["mu"]), 50, 3)
    with pytest.raises(InputError, match="There is no file"):
        read_npz(tmp_path / "absent.npz", 50, 3)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="a pipe"):
        read_npz(tmp_path / "pipe.npz", 50, 3)


def test_arrays_that_expand_beyond_measure_are_refused_by_their_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", mu=np.zeros(3000), sigma=np.zeros((3000, 3000)))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was expanded"))
    with pytest.raises(InputError, match="would expand"):
        read_npz(tmp_path / "bomb.npz", 50, 3000)
    np.savez(tmp_path / "large.npz", mu=np.zeros(3), sigma=np.zeros((300, 300)))
    with pytest.raises(InputError, match=r"shapes \[3\] and \[300, 300\]"):
        read_npz(tmp_path / "large.npz", 50, 3)
