import json
from contextlib import suppress
from pathlib import Path

import pytest

from edm2core.events import parse
from edm2core.store import Store, open_store
from edm2core.store import scratch as module
from edm2core.store.scratch import Scratch
from tests.edm2core.store.killed import killed_at_each_line

PREFIX = "scratch/sample/key"


def content(scratch: Scratch, name: str, folder: Path) -> bytes | None:
    while (path := scratch.get(name, folder)) is not None:
        with suppress(FileNotFoundError):  # it may go away at the writer's next piece
            return path.read_bytes()
    return None


def test_pieces_come_back_and_are_replaced_without_leftovers(store: Store, tmp_path: Path) -> None:
    scratch = Scratch(store, PREFIX, 1)
    assert scratch.names() == []
    assert content(scratch, "state-0", tmp_path) is None
    scratch.put("state-0", b"one")
    (tmp_path / "file").write_bytes(b"two")
    scratch.put("state-0", tmp_path / "file")
    (tmp_path / "file").unlink()
    scratch.put("shards/00000", b"")
    assert scratch.names() == ["shards/00000", "state-0"]
    assert content(scratch, "state-0", tmp_path) == b"two"
    assert content(scratch, "shards/00000", tmp_path) == b""
    assert len(list(store.list(PREFIX + "/"))) == 4


def test_a_piece_below_another_is_another(store: Store, tmp_path: Path) -> None:
    scratch = Scratch(store, PREFIX, 1)
    scratch.put("a", b"1")
    scratch.put("a/b", b"2")
    scratch.put("a", b"3")
    assert (content(scratch, "a", tmp_path), content(scratch, "a/b", tmp_path)) == (b"3", b"2")


def test_foreign_files_in_scratch_are_no_pieces_and_are_not_cleared(store: Store) -> None:
    store.write(f"{PREFIX}/wanted/run.json", b"[1]")
    store.write(f"{PREFIX}/log", b"lines")
    scratch = Scratch(store, PREFIX, 1)
    scratch.put("a", b"1")
    assert scratch.names() == ["a"]
    scratch.clear()
    assert scratch.names() == []
    assert [entry.path for entry in store.list(PREFIX + "/")] == [f"{PREFIX}/log", f"{PREFIX}/wanted/run.json"]


def test_a_late_writer_of_an_older_generation_harms_nothing(store: Store, tmp_path: Path) -> None:
    old, new = Scratch(store, PREFIX, 1), Scratch(store, PREFIX, 2)
    old.put("state", b"old")
    assert content(new, "state", tmp_path) == b"old"
    new.put("state", b"new")
    old.put("state", b"late")
    old.put("only-old", b"late")
    assert content(new, "state", tmp_path) == content(old, "state", tmp_path) == b"new"
    old.clear()
    assert content(new, "state", tmp_path) == b"new"
    new.clear()
    assert list(store.list("scratch/")) == []


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "record"])
def test_a_damaged_piece_is_reported_and_counts_as_none(
    store: Store, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = Scratch(store, PREFIX, 1)
    scratch.put("state", b"0123456789")
    (data,) = (entry.path for entry in store.list(PREFIX + "/") if entry.path.endswith(".bytes"))
    if damage == "missing":
        store.delete(data)
    elif damage == "record":
        store.write(f"{PREFIX}/state/000001.json", b'{"file": 1')
    else:
        store.write(data, b"01234" if damage == "truncated" else b"0123x56789")
    assert scratch.get("state", tmp_path) is None
    (line,) = capsys.readouterr().out.splitlines()
    event = parse(line)
    assert event is not None
    assert event["kind"] == "warning"
    assert f"{PREFIX}/state/000001.json" in event["message"]
    scratch.put("state", b"again")
    assert content(scratch, "state", tmp_path) == b"again"
    assert len(list(store.list(PREFIX + "/"))) == 2


def test_where_the_newest_is_damaged_the_older_generation_serves(store: Store, tmp_path: Path) -> None:
    Scratch(store, PREFIX, 2).put("state", b"new")
    (data,) = (entry.path for entry in store.list(PREFIX + "/") if entry.path.endswith(".bytes"))
    store.write(data, b"nev")
    Scratch(store, PREFIX, 1).put("state", b"old")
    assert content(Scratch(store, PREFIX, 3), "state", tmp_path) == b"old"


def test_a_record_that_points_out_of_the_store_is_refused(store: Store, tmp_path: Path) -> None:
    record = {"file": "../../etc/passwd", "size": 1, "sha256": "0" * 64}
    store.write(f"{PREFIX}/state/000001.json", json.dumps(record).encode())
    assert Scratch(store, PREFIX, 1).get("state", tmp_path) is None


def test_a_piece_that_is_replaced_between_the_listing_and_the_reading_is_found(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scratch(local, PREFIX, 1).put("state", b"old")
    read, newer = local.read, [Scratch(local, PREFIX, 2)]

    def replaced_first(path: str) -> bytes:
        if newer:
            newer.pop().put("state", b"new")
        return read(path)

    monkeypatch.setattr(local, "read", replaced_first)
    assert content(Scratch(local, PREFIX, 99), "state", tmp_path) == b"new"


def test_a_writer_killed_at_any_of_its_lines_leaves_the_piece_before_or_after(
    local: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = b"before" * 20_000, b"after!" * 20_000
    found = []
    for _ in killed_at_each_line(module, lambda: Scratch(open_store(local.uri), PREFIX, 2).put("state", after)):
        found.append(content(Scratch(local, PREFIX, 99), "state", tmp_path))
        Scratch(local, PREFIX, 99).clear()
        Scratch(local, PREFIX, 1).put("state", before)
    assert set(found[1:]) == {before, after}
    assert capsys.readouterr().out == ""
