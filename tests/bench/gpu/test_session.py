"""A session keeps each row as it is measured, goes on after a failure or a cut, and measures nothing twice."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.gpu.__main__ import _left, chosen, main, session, summary
from bench.record import recorded
from bench.rows import Options, Result, Row

OPTIONS = Options(rehearsal=True)


def fails(options: Options) -> Result:
    raise RuntimeError("CUDA error: an illegal memory access")


def hangs(options: Options) -> Result:
    threading.Event().wait(3600)
    return Result("never")


def row(name: str, measure: object = None, seconds: float = 0.0) -> Row:
    return Row(name, f"what {name} is", "≥ 1×", measure or (lambda options: Result(f"{name} reached")), "cuda", seconds)  # type: ignore[arg-type]


def held(rows: list[Row], folder: Path, minutes: float = 1.0) -> list[Row]:
    return session(rows, OPTIONS, minutes, folder / "results.json", folder / "RESULTS.md", rows)


def test_a_row_that_fails_is_kept_as_failed_and_the_others_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("first", fails), row("second")]
    assert held(rows, tmp_path) == []
    entries = recorded(tmp_path / "results.json")
    assert entries["first"]["failed"] == "RuntimeError: CUDA error: an illegal memory access"
    assert entries["second"]["result"]["reached"] == "second reached"
    assert "| failed: RuntimeError: CUDA error: an illegal memory access |" in (tmp_path / "RESULTS.md").read_text()
    assert [each.name for each in _left(rows, tmp_path / "results.json")] == ["first"]
    assert "FAILED" in capsys.readouterr().out


def test_a_row_that_hangs_is_ended_and_kept_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gpu.__main__.SLACK_S", 5.0)
    held([row("first", hangs), row("second")], tmp_path)
    entries = recorded(tmp_path / "results.json")
    assert entries["first"]["failed"].startswith("TimeoutError")
    assert "result" in entries["second"]


def test_a_row_that_would_not_end_in_time_is_left_for_the_next_session(tmp_path: Path) -> None:
    long, short = row("long", seconds=3600), row("short")
    assert held([long, short], tmp_path) == [long]
    words = "\n".join(summary(tmp_path / "results.json", [long]))
    assert "Not measured for want of time, about 60 min: long." in words
    assert [each.name for each in _left([long, short], tmp_path / "results.json")] == ["long"]


def test_what_another_commit_or_card_measured_is_measured_again(tmp_path: Path) -> None:
    rows = [row("first"), row("second")]
    held(rows, tmp_path)
    entries = json.loads((tmp_path / "results.json").read_text())
    entries["first"]["commit"] = "another"
    entries["second"]["machine"]["GPU"] = "another"
    (tmp_path / "results.json").write_text(json.dumps(entries))
    assert _left(rows, tmp_path / "results.json") == rows


def test_without_a_gpu_the_command_says_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:  # with a message Python prints it, and the exit code is 1
        main()
    assert ended.value.code == "torch finds no CUDA device here. --rehearse FOLDER runs the same code on the CPU, at the smallest size."


ONE_OF_EACH = ["gpu-limits", "gpu-train-E", "gpu-profile-E", "gpu-sample-E", "gpu-choice-folding-E", "gpu-save-E"]


def test_a_name_chooses_its_row_and_a_beginning_all_that_begin_so() -> None:
    assert [each.name for each in chosen(["gpu-train-E"])] == ["gpu-train-E"]
    assert {each.name for each in chosen(["gpu-profile-"])} == {"gpu-profile-E", "gpu-profile-E-compiled"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_row_of_each_kind_is_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", str(tmp_path), "--minutes", "600", *ONE_OF_EACH]
    subprocess.run(command, check=True)
    entries = recorded(tmp_path / "results.json")
    assert {name: entry["failed"] for name, entry in entries.items() if "failed" in entry} == {}
    assert entries.keys() == set(ONE_OF_EACH)
