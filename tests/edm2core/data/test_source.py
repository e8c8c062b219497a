import hashlib
import os
from pathlib import Path

import pytest

from edm2core.config.settings import DataSettings
from edm2core.data import fetch, source_digest
from edm2core.errors import InputError

SHA = "sha256:" + hashlib.sha256(b"content").hexdigest()
MD5 = "md5:" + hashlib.md5(b"content").hexdigest()


def settings(source: Path | str, digest: str | None = None) -> DataSettings:
    return DataSettings(format="cifar10", source=str(source), digest=digest)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "a.tar.gz").write_bytes(b"content")
    return tmp_path / "a.tar.gz"


def test_a_file_is_its_sha256_and_a_declared_digest_goes_first(archive: Path) -> None:
    assert source_digest(settings(archive)) == SHA
    assert source_digest(settings(archive, MD5)) == MD5
    assert source_digest(settings("https://example.org/a.tar.gz", MD5)) == MD5
    assert source_digest(DataSettings(format="digits")) == "builtin:digits"


def test_a_folders_digest_follows_names_and_contents_alone(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> str:
        for file, content in files.items():
            path = tmp_path / name / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return source_digest(settings(tmp_path / name))

    first = folder("first", a__x="1", b="2")
    assert folder("second", b="2", a__x="1", **{".hidden": "3"}) == first
    others = [folder("third", a__x="1", b="3"), folder("fourth", a__y="1", b="2"), folder("fifth", ax="1", b="2")]
    assert len({first, *others}) == 4


def test_a_path_that_does_not_exist_is_named_with_its_setting(tmp_path: Path) -> None:
    for function in (source_digest, lambda s: fetch(s, tmp_path)):
        for digest in (None, SHA):
            with pytest.raises(InputError, match=r"does not exist(.|\n)*data\.source: /nowhere/cifar\.tar\.gz"):
                function(settings("/nowhere/cifar.tar.gz", digest))


@pytest.mark.parametrize("source", ["s3://bucket/key", "ftp://host/file", "file://host/etc/passwd"])
def test_other_schemes_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"http\(s\)|names no host"):
        source_digest(settings(source, SHA))
    with pytest.raises(InputError, match=r"http\(s\)|names no host"):
        fetch(settings(source, SHA), tmp_path)


def test_a_local_source_stays_where_it_is(archive: Path, tmp_path: Path) -> None:
    for digest in (None, SHA, MD5):
        assert fetch(settings(archive, digest), tmp_path / "cache") == archive
    assert fetch(settings(tmp_path), tmp_path / "cache") == tmp_path
    assert fetch(settings(tmp_path, source_digest(settings(tmp_path))), tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("wrong", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_a_wrong_checksum_names_file_expected_and_found(archive: Path, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="digest is wrong") as caught:
        fetch(settings(archive, wrong), tmp_path)
    found = SHA if wrong.startswith("sha256") else MD5
    for text in (str(archive), wrong, found, "what to do"):
        assert text in str(caught.value)
    assert archive.read_bytes() == b"content"


def test_a_pipe_or_a_broken_link_as_a_source_is_called_so_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    os.symlink("/nowhere", tmp_path / "link.zip")
    for name, words in (("pipe.zip", "a pipe"), ("link.zip", "a link to '/nowhere'")):
        for digest in (None, "sha256:" + "0" * 64):
            given = settings(tmp_path / name, digest)
            with pytest.raises(InputError, match=words):
                source_digest(given)
            with pytest.raises(InputError, match=words):
                fetch(given, tmp_path)


def test_a_page_in_place_of_a_file_is_called_so_beside_its_digest(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"<!doctype html><title>Log in</title>")
    with pytest.raises(InputError, match="It is a web page, not the file itself: its digest is sha256:"):
        fetch(settings(tmp_path / "a.tar.gz", SHA), tmp_path)
