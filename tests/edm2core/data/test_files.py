import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edm2core.data import files
from edm2core.data.files import open_files
from edm2core.errors import InputError


def make_zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), name.encode())
    return path


def make_tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name.encode())
            archive.addfile(info, io.BytesIO(name.encode()))
    return path


MAKERS = pytest.mark.parametrize("make", [make_zip, make_tar])
Make = Callable[[Path, list[str]], Path]


@MAKERS
def test_members_are_read_by_name(tmp_path: Path, make: Make) -> None:
    with open_files(make(tmp_path / "a", ["d/one", "./two", "d/e/three", ".hidden", "__MACOSX/four"])) as found:
        assert sorted(found.sizes) == ["d/e/three", "d/one", "two"]
        assert found.folders == {"d", "d/e"}
        assert [found.read(name) for name in ("two", "d/one")] == [b"./two", b"d/one"]


def test_a_folder_shows_the_same_view(tmp_path: Path) -> None:
    (tmp_path / "d/empty").mkdir(parents=True)
    (tmp_path / "d/one").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"2")
    os.symlink(tmp_path / "d/one", tmp_path / "two")
    with open_files(tmp_path) as found:
        assert found.sizes == {"d/one": 1, "two": 1}
        assert found.folders == {"d", "d/empty"}
        assert found.read("two") == b"1"


@MAKERS
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\\\host\\evil", "a/.."])
def test_a_path_that_leaves_the_archive_is_named(tmp_path: Path, make: Make, name: str) -> None:
    with pytest.raises(InputError, match="leads out") as caught, open_files(make(tmp_path / "a.archive", ["fine", name])):
        pass
    assert repr(name) in str(caught.value)
    assert "a.archive" in str(caught.value)


@MAKERS
def test_a_member_stored_twice_is_named(tmp_path: Path, make: Make) -> None:
    with pytest.raises(InputError, match="'a/b' twice"), open_files(make(tmp_path / "a", ["a/b", "a//b"])):
        pass


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_named(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match="'link'"), open_files(tmp_path / "a.tar"):
        pass


def test_a_link_in_a_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="'link'"), open_files(tmp_path / "a.zip"):
        pass


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b broken", b"PK\x03\x04 broken", b"\0" * 100])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photo.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"archive(.|\n)*photo\.zip"), open_files(tmp_path / "photo.zip"):
        pass


@MAKERS
def test_a_truncated_archive_is_named(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path / "a.archive", [f"{n}/{os.urandom(40).hex()}" for n in range(50)])
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InputError, match=r"archive(.|\n)*a\.archive"), open_files(path):
        pass


def test_altered_bytes_in_a_zip_are_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", ["member"])
    data = bytearray(path.read_bytes())
    data[30 + len("member")] ^= 1
    path.write_bytes(data)
    with open_files(path) as found, pytest.raises(InputError, match=r"CRC(.|\n)*'member'"):
        found.read("member")


def test_an_absurdly_large_member_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_MEMBER", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**6))
    with open_files(tmp_path / "bomb.zip") as found, pytest.raises(InputError, match=r"1,000,000 bytes(.|\n)*'zeros'"):
        found.read("zeros")


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.symlink(tmp_path, tmp_path / "a/back")
    with pytest.raises(InputError, match=r"more than once(.|\n)*back"), open_files(tmp_path):
        pass


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    os.symlink(tmp_path / "nowhere", tmp_path / "broken.png")
    with pytest.raises(InputError, match=r"broken\.png"), open_files(tmp_path):
        pass


@given(st.text(st.sampled_from("ab./\\:~ "), min_size=1, max_size=12))
def test_no_accepted_name_leads_out(name: str) -> None:
    try:
        accepted = files._inside(name, Path("a.zip"))
    except InputError:
        return
    assert os.path.normpath(os.path.join("/root", accepted)).startswith("/root")
    assert "\\" not in accepted
