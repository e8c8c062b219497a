"""Whatever file of a store changes by one byte, `edm2 verify` names it."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch.utils.tensorboard import SummaryWriter

from components.report.write import write_report
from edm2core.data.source import digest_of
from edm2core.errors import EdmError, InputError
from edm2core.plan.manifest import Manifest, diff_path
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store.leases import acquire
from edm2core.store.results import commit, load
from edm2core.store.runs import Run, record
from edm2core.store.scratch import Scratch
from edm2core.store.summary import change
from edm2core.store.uploaded_sources import put
from edm2core.store.wanted_epochs import want
from pipelines.cli.gc import command as gc
from pipelines.cli.runs import command as runs
from pipelines.cli.verify import command
from tests.edm2core.report.conftest import Fake


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """The demo as a finished run with its report."""
    fake = Fake(tmp_path_factory.mktemp("verified")).make()
    run = Run("demo-1", fake.store)
    record(run, fake.name, fake.text, fake.tasks, {})
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
    record(run, fake.name, fake.text, fake.tasks, {})
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


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """A run that ended: a result of each stage, events, logs, a report, a source, a lease, a state, a shard, TensorBoard's and a wish."""
    tmp_path = tmp_path_factory.mktemp("working")
    fake, stages = Fake(tmp_path), set[str]()
    fake.make(lambda task: task.stage in stages or bool(stages.add(task.stage)))  # type: ignore[func-returns-value]
    (tmp_path / "brought").write_bytes(b"pictures" * 20)
    brought = digest_of(tmp_path / "brought")
    put(fake.store, brought, tmp_path / "brought", tmp_path / "packing")
    told = Task("prepare", 1, {"digest": brought, "source": "https://example.org/x"}, {}, "brought", "brought")
    fake.tasks = Plan((*fake.tasks, told), fake.tasks.recipes)
    run = Run("demo-1", fake.store)
    snapshot, sample = fake.find("snapshot", recipe="digits/E", epoch=60), fake.find("sample", recipe="digits/E", epoch=60)
    trajectory = trajectory_ref(snapshot)
    record(run, fake.name, fake.text, fake.tasks, {})
    run.log({"kind": "running", "task": str(snapshot.ref), "error": ""})
    run.log({"kind": "failed", "task": str(snapshot.ref), "error": "out of memory"})
    log = run.log_path(snapshot)
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1\nepoch 2\n")
    board = SummaryWriter(str(tmp_path / "board"))
    board.add_scalar("loss", 1.0, 1)
    board.close()
    for file in (tmp_path / "board").iterdir():
        fake.store.write(f"{trajectory.scratch}/tensorboard/00001-{file.name}", file.read_bytes())
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
    report_again(fake)
    run.end()
    return fake


def report_again(fake: Fake) -> None:
    """What `edm2 report` does."""
    write_report(Run("demo-1", fake.store), fake.name, fake.tasks, {}, "edm2 report demo-1")


def damaged(data: bytes) -> list[bytes]:
    """A bit flipped at places all over it, and cut: in the middle, before its last line, and to nothing."""
    places = sorted({0, len(data) - 1, *(len(data) * part // 6 for part in range(1, 6))})
    flipped = [data[:place] + bytes([data[place] ^ 1 << number % 7]) + data[place + 1 :] for number, place in enumerate(places)]
    lines = data.splitlines(keepends=True)
    return [*flipped, data[: len(data) // 2], b"".join(lines[:-1]), b""]


REPORTS = ("report.html", "results.json", "overview.json", ".csv")


def kind_of(name: str) -> tuple[str, ...]:
    """Files of one kind are written and checked alike."""
    area, file, suffix = name.split("/")[0], name.rpartition("/")[2], name.rpartition(".")[2]
    if area == "runs":
        return (area, name.split("/")[2] if name.count("/") > 2 else "table" if suffix == "csv" else file)
    if area == "results":
        return (area, file) if file == "manifest.json" else (area, suffix)
    if area == "scratch":
        return (area, next((part for part in ("wanted", "tensorboard") if f"/{part}/" in name), suffix))
    return (area, suffix if area in ("leases", "code") else "")


@pytest.mark.slow
def test_whatever_kind_of_file_is_flipped_or_cut_is_found_named_and_mended(
    working: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edm2core.store.damage.PATIENCE_S", -1.0)  # as if nobody had been heard of for a minute
    monkeypatch.setattr("edm2core.store.damage.FRESH_S", -1.0)
    store, root = working.store.uri, working.store.root
    assert verify(store, capsys)[1] == ""
    whole = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    kinds: dict[tuple[str, ...], str] = {}
    for name in (name for name, data in whole.items() if data):
        kinds.setdefault(kind_of(name), name)
    assert kinds.keys() >= {
        *((("runs", file)) for file in ("plan.json", "experiment.yaml", "summary.json", "appended.json", "events", "logs")),
        *((("runs", file)) for file in ("report.html", "results.json", "table")),
        *(("results", suffix) for suffix in ("manifest.json", "json", "npy", "safetensors", "png", "jsonl")),
        *(("scratch", of) for of in ("json", "bytes", "wanted", "tensorboard")),
        *((("leases", "json"), ("leases", "beat"), ("sources", ""), ("code", "diff"))),
    }
    for name in kinds.values():
        for data in damaged(whole[name]):
            if data == whole[name]:
                continue
            working.store.write(name, data)
            printed, error = verify(store, capsys)
            assert error, (name, data[:80])
            piece, _, suffix = name.rpartition(".")
            record_of = f"{piece.rpartition('-')[0]}.json" if suffix == "bytes" else name
            assert (name.split("/")[2] if name.startswith("results/") else record_of) in printed, (name, printed)
            verify(store, capsys, "--drop")
            if name.endswith(("plan.json", "experiment.yaml")):  # which running the experiment again records anew
                run = Run("demo-1", working.store)
                record(run, working.name, working.text, working.tasks, {})
                run.end()
            elif name.endswith(REPORTS):
                report_again(working)
            printed, error = verify(store, capsys)
            assert error == "", (name, data[:80], printed)
            for path in [path for path in root.rglob("*") if path.is_file()]:
                if path.relative_to(root).as_posix() not in whole:
                    path.unlink()
            for other, before in whole.items():
                if not (root / other).exists() or (root / other).read_bytes() != before:
                    working.store.write(other, before)


def test_what_was_damaged_before_a_run_was_started_again_is_named_after_it(working: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = working.find("snapshot", recipe="digits/E", epoch=60)
    run = Run("demo-1", working.store)
    log = run.log_path(snapshot)
    before = log.read_text()
    log.write_text(before.replace("1", "3") + "epoch 4\n")
    run.log({"kind": "done", "task": str(snapshot.ref), "error": ""})
    run.end()
    printed, error = verify(working.store.uri, capsys)
    assert error
    assert f"{snapshot.key}/0.log: It does not begin with the {len(before)} bytes recorded" in printed
    log.write_text(before + "epoch 4\n")
    assert verify(working.store.uri, capsys)[1] == ""


def test_gc_and_runs_name_damaged_records_and_what_mends_them(working: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    store, root = working.store, working.store.root
    trajectory = trajectory_ref(working.find("snapshot", recipe="digits/E", epoch=60))
    (events,) = (entry.path for entry in store.list("runs/demo-1/events/") if b"out of memory" in store.read(entry.path))
    names = ["runs/demo-1/summary.json", events, f"leases/{trajectory.stage}/{trajectory.key}/000001.beat"]
    before = {name: store.read(name) for name in (*names, "runs/demo-1/plan.json")}
    for name in names:
        store.write(name, before[name][:-9])
        gc.main(["--store", store.uri], standalone_mode=False)
        printed = capsys.readouterr().out
        assert f"✗ {name}: " in printed
        assert f"`edm2 verify {store.uri} --drop` mends them" in printed
        store.write(name, before[name])
    gc.main(["--store", store.uri], standalone_mode=False)
    assert "✗" not in capsys.readouterr().out
    for name in ("runs/demo-1/summary.json", "runs/demo-1/plan.json"):
        store.write(name, before[name][:-9])
        runs.main(["--store", store.uri], standalone_mode=False)
        printed, hint = capsys.readouterr()
        assert "damaged" in printed
        assert f"`edm2 verify {store.uri} --drop` mends a damaged summary. A damaged plan: run its experiment again" in hint
        store.write(name, before[name])
    assert (root / "runs/demo-1/plan.json").read_bytes() == before["runs/demo-1/plan.json"]
    runs.main(["--store", store.uri], standalone_mode=False)
    assert capsys.readouterr().err == ""
