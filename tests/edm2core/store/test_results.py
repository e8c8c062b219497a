import threading
from pathlib import Path
from typing import Any

import pytest

from edm2core.errors import IntegrityError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.store import Store
from edm2core.store.results import commit, discard, load, new_attempt, upload_files, verify

REF = Ref("sample", "0123456789abcdef0123")


def made(store: Store, folder: Path, files: dict[str, bytes], **fields: Any) -> Manifest:
    """An attempt with these files, not committed yet."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    attempt = new_attempt()
    records = upload_files(store, REF, attempt, folder)
    return Manifest(*head(attempt), files=records, **fields)


def head(attempt: str) -> tuple[Any, ...]:
    return (REF.stage, 1, REF.key, "C · seed 0 · samples", {"steps": 18}, {"snapshot": "snapshot/abc"}, {"snapshot": "f" * 64}, attempt)


def test_a_result_is_there_once_its_manifest_is(store: Store, tmp_path: Path) -> None:
    manifest = made(store, tmp_path / "out", {"a.npy": b"1", "deep/b.npy": b"22"})
    assert load(store, REF) is None
    assert commit(store, manifest) == manifest
    assert load(store, REF) == manifest
    assert sorted(manifest.files) == ["a.npy", "deep/b.npy"]
    path = store.fetch(manifest.path("deep/b.npy"), tmp_path / "down", manifest.files["deep/b.npy"])
    assert path.read_bytes() == b"22"
    assert path.as_posix().endswith("/deep/b.npy")
    assert verify(store, manifest) == []


def test_a_loser_adopts_the_winner(store: Store, tmp_path: Path) -> None:
    one, two = (made(store, tmp_path / n, {"f": n.encode()}) for n in ("one", "two"))
    assert commit(store, one) == one
    assert commit(store, two) == one


def test_of_many_commits_one_counts_for_all(store: Store, tmp_path: Path) -> None:
    manifests = [made(store, tmp_path / str(n), {"f": str(n).encode()}) for n in range(6)]
    start, got = threading.Barrier(6), []

    def run(manifest: Manifest) -> None:
        start.wait()
        got.append(commit(store, manifest))

    threads = [threading.Thread(target=run, args=(manifest,)) for manifest in manifests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6
    assert len({manifest.attempt for manifest in got}) == 1


def test_problems_are_named(store: Store, tmp_path: Path) -> None:
    manifest = made(store, tmp_path, {"a": b"1234", "b": b"1234", "c": b"1234", "d": b"1234"})
    store.delete(manifest.path("a"))
    store.write(manifest.path("b"), b"123")
    store.write(manifest.path("c"), b"1235")
    missing, size, contents = verify(store, manifest)
    assert missing == "a is missing."
    assert size == "b has 3 bytes; recorded were 4."
    assert contents.startswith("c has other contents")
    assert verify(store, manifest, contents=False) == [missing, size]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[]", b'{"stage": 1'])
def test_a_manifest_that_is_none_is_named(store: Store, data: bytes) -> None:
    store.write(REF.manifest, data)
    with pytest.raises(IntegrityError) as caught:
        load(store, REF)
    assert REF.manifest in caught.value.where


def test_the_manifest_of_another_result_is_refused(store: Store, tmp_path: Path) -> None:
    manifest = made(store, tmp_path, {"a": b""})
    store.write(Ref("sample", "other").manifest, manifest.dumps())
    with pytest.raises(IntegrityError, match=str(REF)):
        load(store, Ref("sample", "other"))


def test_a_discarded_result_is_gone_with_all_its_attempts(store: Store, tmp_path: Path) -> None:
    commit(store, made(store, tmp_path / "one", {"a": b""}))
    commit(store, made(store, tmp_path / "two", {"a": b""}))
    discard(store, REF)
    assert load(store, REF) is None
    assert list(store.list("results/")) == []


def test_attempts_have_names_of_their_own() -> None:
    assert len({new_attempt() for _ in range(100)}) == 100
