"""Whatever file of a store changes by one byte, `edm2 verify` names it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from components.report.write import write_report
from edm2core.errors import EdmError, InputError
from edm2core.manifest import Manifest, diff_path
from edm2core.plan import trajectory_ref
from edm2core.stages.wanted import want
from edm2core.store.leases import acquire
from edm2core.store.results import commit, load
from edm2core.store.runs import Run, record
from edm2core.store.scratch import Scratch
from edm2core.store.summary import change
from pipelines.cli.verify import command
from tests.edm2core.report.conftest import Fake


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """The demo as a finished run with its report."""
    fake = Fake(tmp_path_factory.mktemp("verified")).make()
    run = Run("demo-1", fake.store)
    record(run, fake.name, fake.text, [task.to_json() for task in fake.tasks], {})
    write_report(run, fake.name, fake.tasks, {}, "edm2 run demo.yaml")
    run.end()
    return fake


def verify(store: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """What it prints, and its error if it ends with one."""
    try:
        command.main([store, *arguments], standalone_mode=False)
    except EdmError as error:
        return capsys.readouterr().out, error.what
    return capsys.readouterr().out, ""


def kinds(fake: Fake) -> list[Path]:
    """One file of each kind: by area, stage and name."""
    root = fake.store.root
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size):
        parts = path.relative_to(root).parts
        if parts[0] in ("results", "runs"):
            found.setdefault((parts[0], parts[1] if parts[0] == "results" else "", parts[-1]), path)
    return list(found.values())


def test_a_store_as_it_was_written_passes(made: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    printed, error = verify(made.store.uri, capsys)
    assert (printed, error) == ("40 of 40 results are as recorded.\n", "")


def test_one_flipped_byte_in_any_kind_of_file_is_named(made: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    looked_at = kinds(made)
    names = {path.name for path in looked_at}
    assert {
        "manifest.json",
        "curve.jsonl",
        "grid.png",
        "values.json",
        "plan.json",
        "experiment.yaml",
        "report.html",
        "results.csv",
    } <= names
    for path in looked_at:
        if path.name == "summary.json":
            continue
        before = path.read_bytes()
        for place in (0, len(before) // 2, len(before) - 1):
            data = bytearray(before)
            data[place] ^= 1
            os.remove(path)
            path.write_bytes(data)
            printed, error = verify(made.store.uri, capsys)
            assert error, (path, place)
            parts = path.relative_to(made.store.root).parts
            assert path.name in printed
            assert (parts[2] if parts[0] == "results" else "runs/demo-1") in printed
        os.remove(path)
        path.write_bytes(before)
    assert verify(made.store.uri, capsys)[1] == ""


def test_a_summary_that_cannot_be_read_is_named(made: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.store.root / "runs/demo-1/summary.json"
    before = path.read_bytes()
    path.write_bytes(before[:-20])
    printed, error = verify(made.store.uri, capsys)
    path.write_bytes(before)
    assert "runs/demo-1/summary.json: The record is damaged" in printed
    assert "1 records or sources have changed" in error


def test_a_report_that_is_being_written_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(tmp_path).make(lambda task: task.stage == "probe")
    run = Run("demo-1", fake.store)
    record(run, fake.name, fake.text, [task.to_json() for task in fake.tasks], {})
    write_report(run, fake.name, fake.tasks, {}, "")
    fake.store.write("runs/demo-1/report.html", b"newer")
    printed, error = verify(fake.store.uri, capsys)
    assert (printed, error) == ("30 of 30 results are as recorded. 10 more are planned and not there: not run yet, or removed.\n", "")
    change(fake.store, "demo-1", ended=1.0)
    assert "runs/demo-1/report.html" in verify(fake.store.uri, capsys)[0]


def test_bad_input_is_named(tmp_path: Path, made: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no store here"):
        command.main([str(tmp_path / "ghost")], standalone_mode=False)
    with pytest.raises(InputError, match="no run ghost"):
        command.main([made.store.uri, "--run", "ghost"], standalone_mode=False)


@pytest.fixture
def working(tmp_path: Path) -> Fake:
    """A run at work: a result of each stage, events, a lease, a state, a shard and a wish."""
    fake, stages = Fake(tmp_path), set[str]()
    fake.make(lambda task: task.stage in stages or bool(stages.add(task.stage)))  # type: ignore[func-returns-value]
    run = Run("demo-1", fake.store)
    snapshot, sample = fake.find("snapshot", recipe="digits/E", epoch=60), fake.find("sample", recipe="digits/E", epoch=60)
    trajectory = trajectory_ref(snapshot)
    record(run, fake.name, fake.text, [task.to_json() for task in fake.tasks], {})
    run.log({"kind": "running", "task": str(snapshot.ref), "error": ""})
    run.log({"kind": "failed", "task": str(snapshot.ref), "error": "out of memory"})
    acquire(fake.store, trajectory).release()
    np.save(tmp_path / "shard.npy", np.arange(100))
    save_file({"weights": np.arange(100)}, tmp_path / "state.safetensors")
    for ref, piece, file in ((trajectory, "state-0", "state.safetensors"), (sample.ref, "shard-00000", "shard.npy")):
        Scratch(fake.store, ref.scratch, 1).put(piece, tmp_path / file)
    want(fake.store, trajectory, run.id, (20, 60))
    changes = b"diff --git a/edm2core/diffusion.py b/edm2core/diffusion.py\n"
    fake.store.write(diff_path(hashlib.sha256(changes).hexdigest()), changes)
    for name in ("state.safetensors", "shard.npy"):  # and results of these formats
        task = next(task for task in fake.tasks if task.stage == "sample" and load(fake.store, task.ref) is None)
        files = {name: fake.store.upload(tmp_path / name, f"{task.ref.folder}/attempt/{name}")}
        commit(fake.store, Manifest(task.stage, task.version, task.key, task.title, task.settings, {}, {}, "attempt", files))
    return fake


def damaged(data: bytes) -> list[bytes]:
    """Flipped at several places, and cut."""
    places = {0, len(data) // 3, len(data) - 2}
    flipped = [data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :] for place in places]
    return [*flipped, data[: len(data) // 2], b""]


def test_whatever_kind_of_file_is_flipped_or_cut_is_found_named_and_mended(
    working: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edm2core.store.damage.PATIENCE_S", -1.0)  # as if nobody had been heard of for a minute
    store, root = working.store.uri, working.store.root
    whole = shutil.copytree(root, tmp_path / "whole")
    kinds: dict[tuple[str, str, str], Path] = {}
    for path in sorted(path for path in whole.rglob("*") if path.is_file() and path.stat().st_size):
        parts = path.relative_to(whole).parts
        if parts[0] in ("runs", "scratch", "leases", "results", "code"):
            kinds.setdefault((parts[0], "wanted" if "wanted" in parts else path.name if parts[0] == "runs" else "", path.suffix), path)
    formats = {(area, suffix) for area, _, suffix in kinds}
    assert formats >= {("results", ".json"), ("results", ".npy"), ("results", ".safetensors"), ("results", ".png"), ("results", ".jsonl")}
    assert formats >= {
        ("leases", ".json"),
        ("leases", ".beat"),
        ("scratch", ".json"),
        ("scratch", ".bytes"),
        ("runs", ".jsonl"),
        ("code", ".diff"),
    }
    for path in kinds.values():
        name = path.relative_to(whole).as_posix()
        for data in damaged(path.read_bytes()):
            if data == b"" and name.endswith(".jsonl"):
                continue  # where nothing was logged, nothing is damaged
            shutil.rmtree(root)
            shutil.copytree(whole, root)
            (root / name).write_bytes(data)
            printed, error = verify(store, capsys)
            assert error, (name, data[:80])
            piece, _, kind = name.rpartition(".")
            shown = name.split("/")[2] if name.startswith("results/") else f"{piece.rpartition('-')[0]}.json" if kind == "bytes" else name
            assert shown in printed, (name, printed)
            verify(store, capsys, "--drop")
            if name.endswith(("plan.json", "experiment.yaml")):  # which running the experiment again records anew
                record(Run("demo-1", working.store), working.name, working.text, [task.to_json() for task in working.tasks], {})
            printed, error = verify(store, capsys)
            assert error == "", (name, data[:80], printed)
