import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from edm2core.data import digest_of
from edm2core.errors import IntegrityError
from edm2core.store import Store
from edm2core.store.uploaded_sources import is_stored, put, stored_path, take


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "a.tar.gz").write_bytes(b"content")
    return tmp_path / "a.tar.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("cat/1.png", "cat/2.png", "dog/ö b.png", "dog/back\\slash.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "none").mkdir()
    (root / ".hidden").write_text("x")
    (root / "cat" / "link.png").symlink_to(root / "cat" / "1.png")
    os.link(root / "cat" / "1.png", root / "cat" / "same.png")
    return root


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else "" for path in folder.rglob("*")}


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_comes_back_by_its_digest(store: Store, archive: Path, tmp_path: Path, algorithm: str) -> None:
    digest = digest_of(archive, algorithm)
    assert not is_stored(store, digest)
    assert take(store, digest, tmp_path / "pod") is None
    put(store, digest, archive, tmp_path / "scratch")
    found = take(store, digest, tmp_path / "pod")
    assert found is not None
    assert found.read_bytes() == b"content"
    assert [entry.path for entry in store.list("")] == [f"sources/{hashlib.new(algorithm, b'content').hexdigest()}"]


def test_the_beginning_of_a_digest_is_enough(store: Store, archive: Path, tmp_path: Path) -> None:
    digest = digest_of(archive)[: len("sha256:") + 8]
    put(store, digest, archive, tmp_path)
    assert take(store, digest, tmp_path / "pod") is not None


def test_a_folder_comes_back_with_names_contents_and_empty_folders(store: Store, folder: Path, tmp_path: Path) -> None:
    digest = digest_of(folder)
    put(store, digest, folder, tmp_path / "scratch")
    assert is_stored(store, digest)
    found = take(store, digest, tmp_path / "pod")
    assert found is not None
    assert {name: text for name, text in contents(folder).items() if name != ".hidden"} == contents(found)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_other_bytes_than_the_digests_are_never_stored(store: Store, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    digest = digest_of(source)
    (source / "cat" / "1.png" if source.is_dir() else source).write_text("changed")
    with pytest.raises(IntegrityError, match="changed while it was being uploaded") as caught:
        put(store, digest, source, tmp_path / "scratch")
    assert caught.value.where == str(source)
    assert list(store.list("")) == []


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_damage_in_the_store_is_named(store: Store, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    digest = digest_of(source)
    put(store, digest, source, tmp_path)
    path = next(iter(store.list("sources/"))).path
    data = store.read(path)
    for damaged in (data.replace(b"cat/1", b"cot/1") if kind == "folder" else b"contenT", data[: len(data) // 3], b""):
        store.write(path, damaged)
        with pytest.raises(IntegrityError, match="is damaged") as caught:
            take(store, digest, tmp_path / f"pod-{len(damaged)}")
        assert path in caught.value.where


@pytest.mark.parametrize("kind", ["above", "absolute", "link"])
def test_an_archive_that_would_write_elsewhere_writes_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    import io
    import tarfile

    bytes_of = io.BytesIO()
    with tarfile.open(fileobj=bytes_of, mode="w") as archive:
        if kind == "link":
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            archive.addfile(link)
        member = tarfile.TarInfo({"above": "../../escaped", "absolute": f"{tmp_path}/escaped", "link": "link/escaped"}[kind])
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    digest = "sha256:" + "0" * 64
    store.write(f"{stored_path(digest)}.tar", bytes_of.getvalue())
    with pytest.raises(IntegrityError, match="is damaged"):
        take(store, digest, tmp_path / "a" / "b" / "pod")
    assert not list(tmp_path.rglob("escaped"))


class Interrupting:
    """A store whose upload breaks off."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upload(self, source: Path, path: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_upload_leaves_nothing_behind(store: Store, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        put(Interrupting(store), digest_of(folder), folder, tmp_path / "scratch")  # type: ignore[arg-type]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not is_stored(store, digest_of(folder))
