import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edm2core.data.source import digest_of
from edm2core.errors import InputError, IntegrityError, StoreError
from edm2core.store import local as module
from edm2core.store import open_store
from edm2core.store.base import unchanged
from edm2core.store.local import LocalStore
from edm2core.store.runs import Run
from edm2core.store.uploaded_sources import put
from tests.edm2core.store.killed import killed_at_each_line


def test_nothing_is_made_before_the_first_write(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/new/store")
    assert list(store.list("")) == []
    assert store.stat("a/b") is None
    assert not (tmp_path / "new").exists()
    store.write("a/b", b"x")
    assert (tmp_path / "new/store/a/b").read_bytes() == b"x"


@pytest.mark.parametrize("uri", ["", " ", "http://host/store", "file://host/store", "ftp://x"])
def test_an_address_that_is_none_is_bad_input(uri: str) -> None:
    with pytest.raises(InputError, match=r"The store cannot be at|The store's address is empty|names no host"):
        open_store(uri)


def test_a_file_in_place_of_the_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(StoreError, match="file is where the store needs a folder"):
        open_store(str(tmp_path / "file" / "below")).write("a", b"")


def test_an_upload_moves_no_bytes_on_one_file_system(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    store = LocalStore(tmp_path / "store")
    store.upload(tmp_path / "source", "a/b")
    assert (tmp_path / "source").stat().st_ino == (tmp_path / "store/a/b").stat().st_ino


def test_a_file_that_is_written_to_while_it_is_stored_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    with pytest.raises(IntegrityError, match="changed while it was being stored"), unchanged(source):
        source.write_bytes(b"and after")


def test_an_upload_from_another_file_system_copies(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    source = other / f"{os.getpid()}-source"
    source.write_bytes(b"bytes")
    try:
        store = LocalStore(tmp_path / "store")
        store.upload(source, "a/b")
        assert store.read("a/b") == b"bytes"
    finally:
        source.unlink()


def test_a_verified_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"12345678")
    store = LocalStore(tmp_path / "store")
    record = store.upload(tmp_path / "source", "a/b")
    hashed = []
    real = module.file_record
    monkeypatch.setattr(module, "file_record", lambda file: hashed.append(file) or real(file))
    for _ in range(3):
        stored = store.fetch("a/b", tmp_path, record)
    assert len(hashed) == 1
    with stored.open("r+b") as stream:
        stream.write(b"9")
    os.utime(stored, ns=(0, stored.stat().st_mtime_ns + 1))
    with pytest.raises(IntegrityError, match="The stored file is damaged"):
        store.fetch("a/b", tmp_path, record)


def test_leftovers_are_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a/b", b"x")
    (tmp_path / ".tmp" / "left").write_bytes(b"12345")
    assert [entry.path for entry in store.list("")] == ["a/b"]


def test_deleting_leaves_no_empty_folders(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a/b/c", b"")
    store.write("a/d", b"")
    store.delete("a/b/c")
    assert not (tmp_path / "a/b").exists()
    assert (tmp_path / "a").is_dir()
    store.delete("a/d")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failing_disk_is_said_in_words_and_nothing_half_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("a/b", b"before")
    (tmp_path / "source").write_bytes(b"new")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for attempt in (
        lambda: store.write("a/b", b"after"),
        lambda: store.create("a/c", b"new"),
        lambda: store.upload(tmp_path / "source", "a/b"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            attempt()
        assert str(tmp_path) in caught.value.where
        assert caught.value.do_next
        assert caught.value.permanent is (number != errno.EIO)
    monkeypatch.undo()
    assert {entry.path: store.read(entry.path) for entry in store.list("")} == {"a/b": b"before"}
    assert list((tmp_path / "store/.tmp").iterdir()) == []


IN_NAMESPACE = """
import sys
from edm2core.errors import StoreError
from edm2core.store import open_store
store = open_store(sys.argv[1])
try:
    store.write("a/b", b"x" * int(sys.argv[2]))
except StoreError as error:
    print(error)
print([tuple(e)[:2] for e in store.list("")], store.read("a/old"))
"""


def in_mount_namespace(mount: str, size: int, folder: Path) -> str:
    """What a writer of `size` bytes prints where `mount` was run before it."""
    script = f'{mount} && exec "$0" -c "$1" {folder} {size}'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, sys.executable, IN_NAMESPACE], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.needs("mount namespaces")
def test_a_full_disk(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=64k none {tmp_path} && mkdir {tmp_path}/a && echo -n old > {tmp_path}/a/old"
    said = in_mount_namespace(mount, 100_000, tmp_path)
    assert "disk is full" in said
    assert said.endswith("[('a/old', 3)] b'old'\n")


@pytest.mark.needs("mount namespaces")
def test_a_read_only_store_can_be_read_and_says_so_when_written(tmp_path: Path) -> None:
    LocalStore(tmp_path).write("a/old", b"old")
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    said = in_mount_namespace(mount, 1, tmp_path)
    assert "read-only" in said
    assert said.endswith("[('a/old', 3)] b'old'\n")


def test_a_folder_without_rights(tmp_path: Path) -> None:
    """Written to by a child that is another user where this process is root, who may write anywhere."""
    with tempfile.TemporaryDirectory() as parent:  # pytest's own folders let no other user in
        folder = Path(parent, "closed")
        folder.mkdir()
        Path(parent).chmod(0o755)
        folder.chmod(0o555)
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            try:
                LocalStore(folder / "store").write("a", b"")
            except StoreError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        said = os.read(reader, 1000).decode()
    assert "denied" in said


def test_a_writer_killed_at_any_of_its_lines_leaves_no_half_object(tmp_path: Path) -> None:
    before, after = b"before" * 50_000, b"after!" * 50_000
    store = LocalStore(tmp_path)
    store.write("w/replaced", before)

    def writes() -> None:
        writer = LocalStore(tmp_path)
        writer.write("w/replaced", after)
        writer.create("w/created", after)

    seen = []
    for _ in killed_at_each_line(module, writes):
        objects = {entry.path: store.read(entry.path) for entry in store.list("")}
        assert {entry.path: entry.size for entry in store.list("")} == dict.fromkeys(objects, 300_000)
        assert objects["w/replaced"] in (before, after)
        assert objects.get("w/created", after) == after
        seen.append((objects["w/replaced"] == after, "w/created" in objects))
        store.write("w/replaced", before)
        store.delete("w/created")
    assert set(seen) == {(False, False), (True, False), (True, True)}  # it was killed before, between and after the two


RACER = """
import sys, time
from edm2core.store import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*[race for race in range(50) if store.create(f"races/{race}", sys.argv[2].encode())], flush=True)
"""


def test_of_many_processes_exactly_one_creates(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {str(n): racer.communicate()[0].split() for n, racer in enumerate(racers)}
    assert sorted(int(race) for races in won.values() for race in races) == list(range(50))
    for n, races in won.items():
        assert all(LocalStore(tmp_path).read(f"races/{race}") == n.encode() for race in races)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_stored_files_follow_the_umask_whatever_wrote_them(tmp_path: Path, umask: int, mode: int) -> None:
    """Weights are written by a library whose files are the user's alone."""
    before = os.umask(umask)
    try:
        store = LocalStore(tmp_path / "store")
        for name, given in (("private", 0o600), ("open", 0o666)):
            (tmp_path / name).write_bytes(b"x")
            (tmp_path / name).chmod(given)
            store.upload(tmp_path / name, f"uploaded/{name}")
        store.write("written", b"x")
        store.create("created", b"x")
        found = {entry.path: stat.S_IMODE((store.root / entry.path).stat().st_mode) for entry in store.list("")}
    finally:
        os.umask(before)
    assert found == dict.fromkeys(("created", "uploaded/open", "uploaded/private", "written"), mode)


def test_a_users_own_file_keeps_its_mode_and_is_not_shared(tmp_path: Path) -> None:
    store, own = LocalStore(tmp_path / "store"), tmp_path / "own"
    own.write_bytes(b"x")
    own.chmod(0o600)
    put(store, digest_of(own), own, tmp_path / "scratch")
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert own.stat().st_nlink == 1


def test_a_store_that_is_deleted_in_use_is_said_to_be_gone_and_is_not_begun_anew(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert list(store.list("")) == []  # not there yet
    store.write("runs/a/plan.json", b"{}")
    (tmp_path / "file").write_bytes(b"")
    shutil.rmtree(store.root)
    operations: list[Callable[[], object]] = [
        lambda: store.read("runs/a/plan.json"),
        lambda: store.read_part("runs/a/plan.json", 0, 1),
        lambda: store.write("a", b""),
        lambda: store.create("a", b""),
        lambda: store.upload(tmp_path / "file", "a"),
        lambda: store.fetch("a", tmp_path),
        lambda: store.record("a"),
        lambda: store.stat("a"),
        lambda: list(store.list("")),
        lambda: store.folders(""),
        lambda: store.sweep(0, lambda path: False),
        lambda: Run("a", store).log({"kind": "done"}),
    ]
    for operation in operations:
        with pytest.raises(StoreError, match="folder is gone"):
            operation()
    assert not store.root.exists()
