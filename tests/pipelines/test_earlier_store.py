"""A store that an earlier version wrote is opened by every verb, and its trainings go on.

`tests/data/earlier_store.tar.xz` was written by `edm2 run` at commit a827bd4, before manifests named the science that made a result and
plans had a digest: the experiment that is in it, on another host, its report without the figures' program, which is 2 MB.
"""

import csv
import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import trajectory_ref, unverified
from edm2core.store import open_store
from edm2core.store.averages import stored_averages
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.runs import list_runs, load_plan
from pipelines.cli.main import main

ARCHIVE = Path(__file__).parents[1] / "data" / "earlier_store.tar.xz"
RUN = "earlier-3ff39a"
Edm2 = Callable[..., str]


@pytest.fixture
def edm2(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Edm2:
    """Run the command beside a copy of the store, `store`, and return all it printed; it must end well."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["edm2", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = "".join(capfd.readouterr())
        assert not caught.value.code, printed
        return printed

    return call


@pytest.fixture
def store(edm2: Edm2, tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_its_plan_verifies_by_its_tasks_keys(store: Store) -> None:
    (run,) = list_runs(store)
    name, tasks = load_plan(store, run)
    assert (run, name, len(tasks)) == (RUN, "earlier", 14)
    assert not unverified(tasks)


def test_its_runs_are_listed_and_its_record_is_read(edm2: Edm2, store: Store) -> None:
    assert re.search(rf"{RUN}\s.*14", edm2("runs", "--store", "store"))
    assert "14 of 14 tasks are done" in edm2("status", RUN, "--store", "store")
    assert "train to epoch 1" in edm2("logs", RUN, "--store", "store")
    assert "git checkout a827bd4" in edm2(
        "reproduce", f"store/results/{next(t.ref for t in load_plan(store, RUN)[1] if t.stage == 'metrics')}"
    )


def test_its_report_is_written_anew_with_the_same_numbers(edm2: Edm2, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "runs" / RUN
    before = rows(folder / "results.csv")
    (folder / "report.html").unlink()
    edm2("report", f"store/runs/{RUN}")
    assert before
    for row, was in zip(rows(folder / "results.csv"), before, strict=True):
        assert was.items() <= row.items()
    assert "unknown" in (folder / "report.html").read_text(encoding="utf-8")


def test_every_file_has_its_recorded_digest(edm2: Edm2) -> None:
    assert "16 of 16 results are as recorded." in edm2("verify", "store")


def test_nothing_that_its_run_needs_is_removed_and_all_of_it_once_the_run_is(edm2: Edm2, tmp_path: Path) -> None:
    stray = tmp_path / "store" / "results" / "probe" / ("0" * 20) / "attempt" / "probe.json"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}")
    results = {name: data for name, data in files(tmp_path / "store").items() if not name.startswith("leases/") and "/attempt/" not in name}
    edm2("gc", "--store", "store", "--days", "0", "--apply")
    assert not stray.exists()
    assert results.items() <= files(tmp_path / "store").items()
    edm2("runs", "rm", RUN, "--store", "store")
    edm2("gc", "--store", "store", "--days", "0", "--apply")
    assert not [name for name in files(tmp_path / "store") if name.startswith(("results/", "scratch/"))]


def test_its_trainings_go_on_unless_their_dropout_masks_would_be_others(edm2: Edm2, store: Store, tmp_path: Path) -> None:
    text = (tmp_path / "store" / "runs" / RUN / "experiment.yaml").read_text(encoding="utf-8")
    asked = text.replace("epochs: [1]", "epochs: [1, 2]").replace("metrics: [fd]", "metrics: []")
    asked = "".join(line for line in asked.splitlines(keepends=True) if not line.startswith(("probe:", "sample:", "diagnostics:")))
    (tmp_path / "more.yaml").write_text(f"{asked}probe: false\n", encoding="utf-8")
    printed = " ".join(edm2("run", "more.yaml", "--store", "store").split())
    assert "5 of 5 tasks ended (3 done, 2 reused)" in printed
    (other,) = set(list_runs(store)) - {RUN}
    earlier, later = ([t for t in load_plan(store, run)[1] if t.stage == "snapshot"] for run in (RUN, other))
    without, with_dropout = later[:2], later[2:]
    assert trajectory_ref(without[1]) == trajectory_ref(earlier[0])
    assert trajectory_ref(with_dropout[1]) != trajectory_ref(earlier[1])
    before, goes_on, anew = (curve(store, load(store, task.ref)) for task in (earlier[0], without[1], with_dropout[1]))
    assert [row["step"] for row in goes_on if "loss" in row] == [3, 6]
    assert goes_on[0] == before[0]  # trained once, by the earlier version
    (mark,) = [row for row in goes_on if row.get("restart")]
    assert mark["science_before"] == "unknown"
    assert [row["step"] for row in anew] == [3, 6]
    assert list(stored_averages(store, trajectory_ref(without[1]), 2)) == [1, 2]
    assert "results are as recorded." in edm2("verify", "store")


def curve(store: Store, manifest: Manifest | None) -> list[dict[str, Any]]:
    assert manifest is not None
    text = store.read(f"{manifest.ref.folder}/{manifest.attempt}/curve.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]
