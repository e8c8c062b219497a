"""What is missing or damaged in the store is recorded, never raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edm2core.report import Outcome, RunInfo

if TYPE_CHECKING:
    from conftest import Fake


def test_every_task_is_there_once_with_its_state(demo: Fake) -> None:
    report = demo.report()
    assert list(report.results) == [task.ref for task in demo.tasks]
    assert {result.outcome.state for result in report.results.values()} == {"done"}
    assert not report.undone
    assert len(report.curves) == 3
    assert len(report.grids) == 9


def test_a_failed_task_keeps_its_reason_and_log(fake: Fake) -> None:
    bad = fake.find("sample", recipe="digits/E", epoch=40)
    fake.make(lambda task: task == bad)
    report = fake.report(RunInfo({bad.ref: Outcome("failed", "out of memory", "logs/0")}))
    assert [result.outcome for result in report.undone] == [("failed", "out of memory", "logs/0")]


def test_a_task_said_to_be_done_without_a_result_is_missing(fake: Fake) -> None:
    bad = fake.find("probe", recipe="digits/E", epoch=40)
    fake.make(lambda task: task == bad)
    for state in ("done", "reused"):
        report = fake.report(RunInfo({bad.ref: Outcome(state)}))
        assert [result.outcome.state for result in report.undone] == ["missing"]


def test_a_damaged_manifest_counts_as_no_result(fake: Fake) -> None:
    fake.make()
    task = fake.find("metrics", recipe="digits/G", epoch=20)
    fake.store.write(task.ref.manifest, b"\x00 no manifest")
    (damaged,) = fake.report().undone
    assert damaged.task.ref == task.ref
    assert damaged.outcome.state == "damaged"


def test_an_altered_file_is_named_and_not_shown(fake: Fake) -> None:
    fake.make()
    task = fake.find("sample", recipe="digits/G", epoch=20)
    manifest = fake.report().results[task.ref].manifest
    assert manifest is not None
    fake.store.write(manifest.path("grid.png"), b"\x89PNG\r\n\x1a\n but another")
    report = fake.report()
    assert task.ref not in report.grids
    assert len(report.unreadable) == 1
    assert "grid.png" in report.unreadable[0]
    assert task.title in report.unreadable[0]


def test_the_curve_is_the_latest_finished_snapshots(fake: Fake) -> None:
    last = fake.find("snapshot", recipe="digits/C", epoch=60)
    fake.make(lambda task: task == last)
    assert fake.find("snapshot", recipe="digits/C", epoch=40).ref in fake.report().curves
