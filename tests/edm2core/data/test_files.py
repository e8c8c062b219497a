import bz2
import copy
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def test_no_accepted_path_leads_out_of_the_archive(name: str) -> None:
    try:
        accepted = files._inside(name, Path("a.zip"))
    except InputError:
        return
    assert os.path.normpath(os.path.join("/root", accepted)).startswith("/root")
    assert "\\" not in accepted


LEFT = (
    *("@eaDir/1.png/SYNOFILE_THUMB_M.png", "a/Thumbs.db", "#recycle/2.png", "$RECYCLE.BIN/3.png", "lost+found/4.png"),
    *("a/desktop.ini", "~snapshot/hourly.0/a/6.png", "FOUND.000/8.png"),
)
HIDDEN = ("a/.ipynb_checkpoints/5-checkpoint.png", "a/.DS_Store", "a/._6.png", "__MACOSX/a/._6.png", ".Trash-1000/files/7.png")


@pytest.mark.parametrize("make", [make_zip, make_tar, None])
def test_what_systems_leave_behind_is_no_part_of_the_data(tmp_path: Path, make: Make | None) -> None:
    names = ["a/6.png", *LEFT, *HIDDEN]
    if make:
        make(tmp_path / "x", names)
    for name in [] if make else names:
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"1")
    with open_files(tmp_path / "x") as found:
        assert (list(found.sizes), found.folders) == (["a/6.png"], {"a"})
        assert sorted(found.left_behind) == sorted(LEFT)


def test_what_systems_leave_behind_need_not_be_readable(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(b"1")
    (tmp_path / "lost+found").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "lost+found/link")
    os.mkfifo(tmp_path / "a/Thumbs.db")
    with open_files(tmp_path) as found:
        assert list(found.sizes) == ["a/1.png"]


@pytest.mark.parametrize(
    ("content", "words", "advice"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
        (b"../.git/annex/objects/x", None, None),
        (b"/annex/objects/SHA256E-s1--0.zip\n", "git-annex pointer", "git annex get"),
        (b"\n<!DOCTYPE html><html>log in</html>", "web page", "browser"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "answer in XML", "refused"),
        (b'{"message": "unauthorized"}', "JSON", "refused"),
        (b"Rar!\x1a\x07\x01\0", "RAR archive", "unrar"),
        (b"7z\xbc\xaf\x27\x1c\0", "7z archive", "7z x"),
        (b"PK\x07\x08PK\x03\x04", "one part of a zip", "all parts"),
        (b"\x28\xb5\x2f\xfd\0", "zstd", "unzstd"),
        (b"\x89PNG\r\n\x1a\n", "PNG image", "meant"),
        (b"\x93NUMPY\x01\0", "array in .npy", "Unpack"),
        (b"", "empty file, of zero bytes", "broke off"),
        (bytes(2000), "zero bytes", "again"),
    ],
)
def test_what_stands_in_place_of_an_archive_is_called_by_its_name(
    tmp_path: Path, content: bytes, words: str | None, advice: str | None
) -> None:
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(InputError) as caught, open_files(tmp_path / "data.zip"):
        pass
    assert (words or "not a readable zip or tar") in caught.value.what
    assert (advice or "") in caught.value.do_next


def test_a_compressed_file_that_is_no_tar_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "data.gz").write_bytes(gzip.compress(b"not a tar" * 100))
    with pytest.raises(InputError, match="compressed by gzip, and what is in it is no tar") as caught, open_files(tmp_path / "data.gz"):
        pass
    assert "gunzip" in caught.value.do_next


def test_a_zip_that_is_cut_is_said_to_be_incomplete(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "a.zip", [f"a/{number}.png" for number in range(50)]).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="begins as a zip archive and cannot be read to its end") as caught, open_files(tmp_path / "a.zip"):
        pass
    assert "incomplete" in caught.value.do_next


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_every_usual_compression_of_a_tar_is_read(tmp_path: Path, opener: Callable[..., Any]) -> None:
    plain = make_tar(tmp_path / "a.tar.gz", ["d/one", "two" * 60])  # the second name needs a header of its own
    with opener(tmp_path / "b", "wb") as file:
        file.write(gzip.decompress(plain.read_bytes()))
    with open_files(tmp_path / "b") as found:
        assert {name: found.read(name) for name in found.sizes} == {"d/one": b"d/one", "two" * 60: b"two" * 60}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe"), open_files(tmp_path / "pipe"):
        pass


def test_a_link_that_leads_nowhere_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for link in ("a/1.png", "data.zip"):
        os.symlink("/nowhere/at/all", tmp_path / link)
        source = tmp_path / link.split("/")[0]
        with pytest.raises(InputError, match="a link to '/nowhere/at/all', which cannot be reached"), open_files(source):
            pass


def with_flags(path: Path, flags: int, method: int | None = None) -> Path:
    """A zip whose members' flags (and method) are set in their headers, as other programs set them."""
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        begin = data.find(magic)
        while begin >= 0:
            struct.pack_into("<H", data, begin + at, flags)
            if method is not None:
                struct.pack_into("<H", data, begin + at + 2, method)
            begin = data.find(magic, begin + 4)
    path.write_bytes(data)
    return path


def test_an_encrypted_zip_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="encrypted") as caught, open_files(with_flags(make_zip(tmp_path / "a.zip", ["a"]), 1)):
        pass
    assert "password" in caught.value.do_next


def test_a_zip_packed_by_an_unusual_method_is_called_so(tmp_path: Path) -> None:
    path = with_flags(make_zip(tmp_path / "a.zip", ["a"]), 0, 93)
    with pytest.raises(InputError, match="method \\(number 93\\)") as caught, open_files(path):
        pass
    assert "deflate" in caught.value.do_next


def unflagged(path: Path, *names: bytes) -> Path:
    """A zip with names of these bytes that states no encoding."""
    stand_ins = [f"{number}".ljust(len(name), "_") for number, name in enumerate(names)]
    data = make_zip(path, stand_ins).read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        data = data.replace(stand_in.encode(), name)
    path.write_bytes(data)
    return path


def test_names_of_a_zip_that_states_no_encoding_are_utf8_where_they_can_be(tmp_path: Path) -> None:
    with open_files(unflagged(tmp_path / "a.zip", "Käse/ü.png".encode(), b"plain")) as found:
        assert (sorted(found.sizes), found.renamed, found.unstated) == (["Käse/ü.png", "plain"], True, ())
    with open_files(unflagged(tmp_path / "b.zip", "猫/1.png".encode("shift-jis"))) as found:
        assert not found.renamed
        assert len(found.unstated) == 1
    with open_files(make_zip(tmp_path / "c.zip", ["Käse/ü.png"])) as found:
        assert (list(found.sizes), found.renamed) == (["Käse/ü.png"], False)


def test_names_in_another_encoding_stay_apart_and_are_read_alike(tmp_path: Path) -> None:
    """In Shift-JIS some characters end in the byte of a backslash; in GBK some look like UTF-8."""
    with open_files(unflagged(tmp_path / "a.zip", "表示/1.png".encode("shift-jis"), "表面/1.png".encode("shift-jis"))) as found:
        assert (len({name.split("/")[0] for name in found.sizes}), found.renamed) == (2, True)
        assert {len(name.split("/")) for name in found.sizes} == {2}
    with open_files(unflagged(tmp_path / "b.zip", "猫/1.png".encode("gbk"), "狗/1.png".encode("gbk"))) as found:
        assert (len(found.unstated), found.renamed) == (2, False)
        assert "è/1.png" not in found.sizes
    with pytest.raises(InputError, match="leads out"), open_files(unflagged(tmp_path / "c.zip", b"a/\x95\\..\\..\\x", b"b/\xff")):
        pass


def test_a_zip_that_expands_beyond_measure_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(2**25))
    with pytest.raises(InputError, match=r"expand from \d[\d,]+ to 33,554,432 bytes"), open_files(tmp_path / "a.zip"):
        pass


def test_many_members_that_share_their_bytes_are_refused_unread(tmp_path: Path) -> None:
    """As in Fifield's zip bomb: each member expands tamely, and all are one."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", os.urandom(2**16) * 4)
        first = archive.filelist[0]
        for number in range(1, 600):
            same = copy.copy(first)
            same.filename = str(number)
            archive.filelist.append(same)
    with pytest.raises(InputError, match="would expand"), open_files(tmp_path / "a.zip"):
        pass


def test_a_tar_that_expands_beyond_measure_is_refused_unread(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 2**25
        archive.addfile(info, io.BytesIO(bytes(2**25)))
    with pytest.raises(InputError, match="would expand"), open_files(tmp_path / "a.tar.gz"):
        pass


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGLINK])
def test_a_tar_whose_header_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 2**25
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**25 + 1024)))
    with pytest.raises(InputError, match="archive"), open_files(tmp_path / "a.tar.gz"):
        pass


def test_an_xz_that_wants_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_XZ", 2**20)
    with lzma.open(tmp_path / "a.tar.xz", "wb", preset=9) as file:
        file.write(bytes(10_000))
    with pytest.raises(InputError, match="bytes of memory"), open_files(tmp_path / "a.tar.xz"):
        pass
