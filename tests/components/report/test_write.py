"""What a run's record adds to its report."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from components.report.write import write_report
from edm2core.store import open_store
from edm2core.store.runs import Run, add_tasks, record
from edm2core.store.summary import Summary


@pytest.fixture
def run(tmp_path: Path) -> Run:
    begun = Run("demo-1", open_store(str(tmp_path)))
    record(begun, "demo", "name: demo\n", [], {}, lambda words: None)
    return begun


def times(run: Run) -> tuple[float | None, float | None]:
    """When the run was started and ended as its results.json says, in seconds since 1970."""
    facts = json.loads(run.store.read(f"{run.folder}/results.json"))["run"]
    started, finished = (datetime.fromisoformat(facts[name]).timestamp() if facts[name] else None for name in ("started", "finished"))
    return started, finished


def test_a_report_says_when_its_run_was_started_and_ended(run: Run) -> None:
    asked = Summary.load(run.store, run.id).asked
    add_tasks(run, "demo", [], {}, lambda words: None)  # as a recheck does, which starts nothing anew
    write_report(run, "demo", [], {}, "edm2 run", running=True)
    assert times(run) == (pytest.approx(asked, abs=1), None)
    assert "T" in run.store.read(f"{run.folder}/report.html").decode().partition("<dt>Run</dt><dd>last started ")[2][:20]
    write_report(run, "demo", [], {}, "edm2 run", ended=asked + 90)
    assert times(run) == (pytest.approx(asked, abs=1), pytest.approx(asked + 90, abs=1))


def test_a_report_that_is_written_again_says_when_the_run_ended_and_nothing_of_one_that_was_killed(run: Run) -> None:
    write_report(run, "demo", [], {}, "edm2 report")
    assert times(run)[1] is None
    run.end()
    write_report(run, "demo", [], {}, "edm2 report")
    assert times(run)[1] == pytest.approx(Summary.load(run.store, run.id).ended, abs=1)


def test_a_run_without_a_summary_has_no_times(run: Run) -> None:
    run.store.delete(f"{run.folder}/summary.json")
    write_report(run, "demo", [], {}, "edm2 report")
    assert times(run) == (None, None)
