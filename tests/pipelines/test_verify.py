"""Whatever file of a store changes by one byte, `edm2 verify` names it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.report.write import write_report
from edm2core.errors import EdmError, InputError
from edm2core.store.runs import Run, record
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
