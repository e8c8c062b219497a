"""What a file is by how it begins, of any bytes."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edm2core.data.alpha import alpha_of
from edm2core.data.file_kinds import INSTEAD, TAR, kind_of, regular, unexpected
from edm2core.data.files import Files
from edm2core.errors import InputError
from edm2core.words import printable

BEGINNINGS = [
    b"",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBPVP8X",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"PK\x03\x04",
    b"{",
    b"<?xml",
]


def holding(data: bytes) -> Files:
    """A folder with one file, in memory."""
    return Files(Path("/data"), "folder", {"a.png": len(data)}, frozenset(), lambda name, size: data[:size])


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200))
def test_any_bytes_are_some_kind_or_none_and_have_an_alpha_channel_or_not(start: bytes, rest: bytes) -> None:
    kind = kind_of(start + rest)
    assert kind is None or (kind.name and kind.do_next)
    if kind not in INSTEAD:
        assert alpha_of(holding(start + rest), "a.png") in (True, False)


@given(
    st.sampled_from(["L", "LA", "P", "RGB", "RGBA", "1"]),
    st.sampled_from(["PNG", "TIFF", "WEBP", "GIF", "BMP"]),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_the_header_says_what_pillow_says(mode: str, form: str, side: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).convert(mode).save(file, form)
    except OSError:  # a form that has no such mode
        return
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert alpha_of(holding(file.getvalue()), "a.png") == image.has_transparency_data


def test_a_tar_is_known_by_its_first_header(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a", "w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    assert kind_of((tmp_path / "a").read_bytes()[:512]) is TAR
    assert unexpected(tmp_path / "a", "an .npz", "").what == "It is a tar archive, and an .npz was expected."


def test_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "a folder"), (Path("/dev/null"), "a device")):
        with pytest.raises(InputError, match=words):
            regular(path)


@given(st.text())
def test_printable_text_can_be_written_and_stays_what_it_was_where_it_could_be(text: str) -> None:
    printed = printable(text)
    printed.encode("utf-8")
    assert printed == text or any("\ud800" <= letter <= "\udfff" for letter in text)


def test_bytes_of_names_are_shown_as_bytes() -> None:
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert str(InputError("It is \udcff.", where="a\udcff")) == "It is \\xff.\n  where: a\\xff"
