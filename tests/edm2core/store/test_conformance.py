"""What every store promises, whatever its bytes lie on."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from edm2core.errors import IntegrityError, MissingError, StoreError
from edm2core.plan.manifest import FileRecord
from edm2core.store import Store, open_store


def record_of(data: bytes) -> FileRecord:
    return FileRecord(len(data), hashlib.sha256(data).hexdigest())


def test_what_is_written_is_read_and_a_second_write_replaces_it(store: Store) -> None:
    store.write("runs/a/plan.json", b"one")
    store.write("runs/a/plan.json", b"two")
    assert store.read("runs/a/plan.json") == b"two"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write("runs/a/empty", b"")
    assert store.read("runs/a/empty") == b""
    entry = store.stat("runs/a/empty")
    assert entry is not None
    assert entry.size == 0


def test_what_is_not_there_is_missing(store: Store, tmp_path: Path) -> None:
    for attempt in (lambda p: store.read(p), lambda p: store.fetch(p, tmp_path), lambda p: store.record(p)):
        with pytest.raises(MissingError) as caught:
            attempt("runs/none/plan.json")
        assert "runs/none/plan.json" in caught.value.where
    assert store.stat("runs/none/plan.json") is None
    assert list(store.list("runs/")) == []
    store.delete("runs/none/plan.json")


def test_a_folder_is_no_object(store: Store) -> None:
    store.write("runs/a/plan.json", b"{}")
    assert store.stat("runs/a") is None
    with pytest.raises(MissingError):
        store.read("runs/a")
    store.delete("runs/a")
    assert store.read("runs/a/plan.json") == b"{}"


def test_create_gives_true_once_and_keeps_the_first(store: Store) -> None:
    assert store.create("results/s/k/manifest.json", b"first")
    assert not store.create("results/s/k/manifest.json", b"second")
    assert store.read("results/s/k/manifest.json") == b"first"
    store.delete("results/s/k/manifest.json")
    assert store.create("results/s/k/manifest.json", b"third")


def test_of_many_creators_exactly_one_wins(store: Store) -> None:
    for race in range(5):
        start, won = threading.Barrier(8), []

        def compete(me: int, race: int = race, start: threading.Barrier = start, won: list[int] = won) -> None:
            start.wait()
            if store.create(f"races/{race}", str(me).encode() * 1000):
                won.append(me)

        threads = [threading.Thread(target=compete, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read(f"races/{race}") == str(won[0]).encode() * 1000


def test_an_uploaded_file_comes_back_verified(store: Store, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    source = tmp_path / "source.bin"
    source.write_bytes(data)
    record = store.upload(source, "results/s/k/a/deep/file.bin")
    assert record == record_of(data) == store.record("results/s/k/a/deep/file.bin")
    source.unlink()
    fetched = store.fetch("results/s/k/a/deep/file.bin", tmp_path / "down", record)
    assert fetched.read_bytes() == data
    assert fetched.name == "file.bin"
    assert store.fetch("results/s/k/a/deep/file.bin", tmp_path / "down", record).read_bytes() == data


def test_replacing_the_source_of_an_upload_leaves_the_stored_bytes(store: Store, tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"stored")
    store.upload(source, "a/b")
    other.write_bytes(b"later")
    os.replace(other, source)
    assert store.read("a/b") == b"stored"
    store.upload(source, "a/b")
    store.upload(source, "a/b")
    assert store.read("a/b") == b"later"


def test_a_symbolic_link_is_uploaded_as_what_it_points_to(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store.upload(tmp_path / "link", "a/b")
    (tmp_path / "real").unlink()
    assert store.read("a/b") == b"bytes"


def test_uploading_what_is_not_a_file_names_it(store: Store, tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError) as caught:
            store.upload(source, "a/b")
        assert str(source) in caught.value.where


def test_other_bytes_than_recorded_are_refused(store: Store, tmp_path: Path) -> None:
    store.write("a/b", b"12345678")
    for wrong in (record_of(b"12345679"), FileRecord(9, record_of(b"12345678").sha256)):
        with pytest.raises(IntegrityError) as caught:
            store.fetch("a/b", tmp_path, wrong)
        assert "a/b" in caught.value.where
        assert not (tmp_path / "b").exists()
    assert store.fetch("a/b", tmp_path, record_of(b"12345678")).read_bytes() == b"12345678"


def test_bytes_that_change_after_they_were_verified_are_noticed(store: Store, tmp_path: Path) -> None:
    store.write("a/b", b"12345678")
    record = record_of(b"12345678")
    store.fetch("a/b", tmp_path, record)
    store.write("a/b", b"12345679")
    with pytest.raises(IntegrityError, match="damaged"):
        store.fetch("a/b", tmp_path / "other", record)


def test_list_is_sorted_complete_and_of_one_folder(store: Store) -> None:
    paths = sorted(["a/b-c/1", "a/b/1", "a/b/2/3", "a/b.json", "ab/1", "a/B", "a/ü", "z"])
    for path in reversed(paths):
        store.write(path, path.encode())
    assert [entry.path for entry in store.list("")] == paths
    assert [entry.path for entry in store.list("a/b/")] == ["a/b/1", "a/b/2/3"]
    assert all(entry.size == len(entry.path.encode()) for entry in store.list(""))
    assert list(store.list("nothing/")) == []


def test_age_is_that_of_the_last_write(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "old"
    source.write_bytes(b"x")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    store.upload(source, "a/b")
    store.write("a/c", b"x")
    entries = {entry.path: entry for entry in store.list("")}
    for path in ("a/b", "a/c"):
        entry = store.stat(path)
        assert entry is not None
        assert 0 <= entry.age_s < 60
        assert 0 <= entries[path].age_s < 60


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a\nb", "a\\b", "a\0b"])
def test_a_path_that_could_lead_out_is_refused(store: Store, tmp_path: Path, path: str) -> None:
    (tmp_path / "source").write_bytes(b"x")
    for attempt in (
        lambda: store.read(path),
        lambda: store.write(path, b""),
        lambda: store.create(path, b""),
        lambda: store.upload(tmp_path / "source", path),
        lambda: store.fetch(path, tmp_path),
        lambda: store.stat(path),
        lambda: store.delete(path),
    ):
        with pytest.raises(StoreError, match="not the path of anything in a store"):
            attempt()
    if path and not (path.endswith("/") and len(path) == 2):
        with pytest.raises(StoreError):
            list(store.list(path))


def test_the_uri_opens_the_same_store_again(store: Store) -> None:
    store.write("a/b", b"here")
    assert open_store(store.uri).read("a/b") == b"here"


def test_unfinished_writes_are_swept_and_finished_ones_stay(store: Store) -> None:
    store.write("a/b", b"here")
    assert store.sweep(0, lambda path: False) >= 0
    assert store.read("a/b") == b"here"


def test_a_part_of_an_object_is_read_by_itself(store: Store) -> None:
    store.write("runs/a/0.log", b"0123456789")
    assert store.read_part("runs/a/0.log", 3, 4) == b"3456"
    assert store.read_part("runs/a/0.log", 8, 100) == b"89"
    assert store.read_part("runs/a/0.log", 10, 5) == b""
    with pytest.raises(MissingError):
        store.read_part("runs/a/1.log", 0, 5)


def test_folders_are_named_without_what_is_in_them(store: Store) -> None:
    assert store.folders("runs/") == ()
    for path in ("runs/b/plan.json", "runs/a/logs/0.log", "runs/a/plan.json", "runs/note.txt", "results/s/k/manifest.json"):
        store.write(path, b"x")
    assert store.folders("runs/") == ("a", "b")
    assert store.folders("") == ("results", "runs")
    with pytest.raises(StoreError, match="not the path of anything in a store"):
        store.folders("../")
