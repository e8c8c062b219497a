"""A small experiment with the real command: once, again, extended, twice at once, damaged, interrupted."""

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.quick_edm2 import quick_edm2
from tests.waiting import wait_until

TINY = """
name: tiny
recipes: [digits/{recipes}]
epochs: [{epochs}]
metrics: [fd_filters]
sample: {{count: 80, steps: 3}}
probe: {{epochs: 1}}
overrides: {{network.multipliers: [1], network.attention_resolutions: [], training.batch: 256, probe.blocks: [out_1]}}
"""


class Place:
    """A folder with an experiment and a store."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder, self.command = folder, command

    def write(self, recipes: str = "G", epochs: str = "1, 2") -> None:
        (self.folder / "e.yaml").write_text(TINY.format(recipes=recipes, epochs=epochs))

    def start(self, *more: str, **options: Any) -> "subprocess.Popen[str]":
        command = [*self.command, "run", "e.yaml", "--store", "store", *more]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        return subprocess.Popen(command, cwd=self.folder, text=True, **options)

    def run(self, *more: str, code: int = 0) -> str:
        process = self.start(*more)
        printed, _ = process.communicate(timeout=240)
        assert process.returncode == code, printed
        return printed

    def wait_for_training(self) -> None:
        wait_until(lambda: list(self.folder.glob("store/leases/trajectory/*/*.json")), 100)

    def results(self) -> list[dict[str, Any]]:
        newest = max(self.folder.glob("store/runs/*/results.json"), key=lambda path: path.stat().st_mtime)
        rows: list[dict[str, Any]] = json.loads(newest.read_text())["results"]
        return rows

    def manifests(self) -> dict[str, float]:
        found = self.folder.glob("store/results/*/*/manifest.json")
        return {f"{path.parts[-3]}/{path.parts[-2]}": path.stat().st_mtime for path in found if path.parts[-3] != "average"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """By the command as users have it, with a forking process of its own."""
    place = Place(tmp_path_factory.mktemp("finished"), [sys.executable, "-m", "pipelines.cli.main"])
    place.write()
    place.run()
    return place


@pytest.fixture
def place(finished: Place, tmp_path: Path) -> Place:
    """The finished experiment, to go on from."""
    subprocess.run(["cp", "-r", f"{finished.folder}/.", str(tmp_path)], check=True)
    return Place(tmp_path, quick_edm2())


@pytest.fixture
def begun(place: Place) -> Place:
    """The experiment with everything that comes before training done."""
    for name in ("results/snapshot", "results/average", "results/sample", "results/metrics", "results/probe", "scratch", "leases", "runs"):
        shutil.rmtree(place.folder / "store" / name, ignore_errors=True)
    return place


def test_an_experiment_ends_with_its_numbers_and_a_page(finished: Place) -> None:
    rows = {(row["metric"], row["epoch"]): row["value"] for row in finished.results()}
    assert rows.keys() == {(m, e) for m in ("fd_filters", "probe_accuracy") for e in (1, 2)} | {("pixel_accuracy", None)}
    page = next(finished.folder.glob("store/runs/*/report.html")).read_text()
    assert "fd_filters" in page or "FD (filter features)" in page
    assert list(finished.folder.glob("store/runs/*/logs/*/*.log"))


def test_a_runs_record_says_of_every_task_when_it_began_what_it_said_and_when_it_ended(finished: Place) -> None:
    plan = json.loads(next(finished.folder.glob("store/runs/*/plan.json")).read_text())
    lines = next(finished.folder.glob("store/runs/*/events/*.jsonl")).read_text().splitlines()
    times: dict[str, list[tuple[str, float]]] = {}
    for event in map(json.loads, lines):
        if event["kind"] in ("running", "start", "done"):
            times.setdefault(event["task"], []).append((event["kind"], event["time"]))
    for task in plan["tasks"]:
        found = times[f"{task['stage']}/{task['key']}"]
        assert {"running", "done"} <= {kind for kind, _ in found}
        assert max(time for _, time in found) == dict(found)["done"]


def test_a_second_run_computes_nothing_and_takes_seconds(place: Place) -> None:
    before, results = place.manifests(), place.results()
    begun = time.monotonic()
    place.run()
    assert place.manifests() == before
    assert place.results() == results
    assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_a_later_epoch_and_another_recipe_compute_only_themselves(place: Place) -> None:
    before = place.manifests()
    place.write(recipes="G, digits/E", epochs="1, 2, 3")
    place.run()
    after = place.manifests()
    assert before.items() <= after.items()
    assert len(after) - len(before) == 4 + 3 * 4  # G at epoch 3, E at three epochs: snapshot, samples, FD, probe


@pytest.mark.slow
def test_the_best_is_evaluated_again_and_stays_in_the_plan(place: Place) -> None:
    results = place.results()
    file = place.folder / "e.yaml"
    file.write_text(file.read_text() + "recheck: 2\n")
    place.run()
    assert place.results() == results
    folder = next(place.folder.glob("store/runs/*/results.json")).parent
    again = json.loads((folder / "results.json").read_text())["rechecks"]
    chosen = min((row for row in results if row["metric"] == "fd_filters"), key=lambda row: row["value"])
    assert [(row["epoch"], row["draw"]) for row in again] == [(chosen["epoch"], 1), (chosen["epoch"], 2)]
    assert len({row["value"] for row in [chosen, *again]}) == 3
    assert sum("recheck" in task["subject"] for task in json.loads((folder / "plan.json").read_text())["tasks"]) == 4
    before = place.manifests()
    place.run()
    assert place.manifests() == before


@pytest.mark.slow
def test_a_snapshot_with_one_flipped_byte_is_named_dropped_and_made_anew(place: Place) -> None:
    weights = next(place.folder.glob("store/results/snapshot/*/*/ema-fixed.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    for folder in place.folder.glob("store/results/sample/*"):
        subprocess.run(["rm", "-r", str(folder)], check=True)
    results = place.results()
    assert "ema-fixed.safetensors" in place.run(code=1)
    verify = [sys.executable, "-m", "pipelines.cli.main", "verify", "store", "--drop"]
    subprocess.run(verify, cwd=place.folder, check=True, stdout=subprocess.DEVNULL)
    place.run("--train-again")
    assert place.results() == results


@pytest.mark.slow
def test_a_lost_snapshot_costs_no_hours_unless_that_is_asked_for(place: Place) -> None:
    before = place.manifests()
    lost = next(place.folder.glob("store/results/snapshot/*/manifest.json"))
    lost.unlink()
    printed = place.run(code=2)
    assert "Snapshots are gone from the store" in printed
    assert "--train-again" in printed
    assert not lost.exists()
    place.run("--train-again")
    assert place.manifests().keys() == before.keys()


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(begun: Place, finished: Place) -> None:
    place = begun
    processes = [place.start()]
    place.wait_for_training()
    processes.append(place.start())
    printed = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert place.results() == finished.results()
    assert "waiting for pid" in printed[1]
    attempts = [list(folder.glob("*-*")) for folder in place.folder.glob("store/results/*/*")]
    assert all(len(found) == 1 for found in attempts)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_stops_with_130_and_the_same_command_goes_on(begun: Place, finished: Place, times: int) -> None:
    place = begun
    process = place.start(start_new_session=True)
    place.wait_for_training()
    assert process.stdout is not None
    lines: list[str] = []
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        while times == 2 and lines[-1:] != ["Saving and stopping; once more to stop at once.\n"]:
            lines.append(process.stdout.readline())
    printed = "".join(lines) + process.communicate(timeout=100)[0]
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    place.run()
    assert place.results() == finished.results()


@pytest.mark.slow
def test_kills_at_random_moments_change_no_result(tmp_path: Path, finished: Place) -> None:
    """The short form of `python tests/kill_experiment.py experiments/demo.yaml`."""
    reference = next(finished.folder.glob("store/runs/*/results.json"))
    script = Path(__file__).parents[2] / "kill_experiment.py"
    command = [sys.executable, str(script), "e.yaml", "--kills", "3", "--within", "15", "--reference", str(reference)]
    ran = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_a_closed_terminal_stops_it_as_sigterm_does_and_the_same_command_goes_on(begun: Place, finished: Place) -> None:
    place = begun
    place.write(epochs="1, 2, 40")  # long enough not to end between its first step and the closing
    terminal, end = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), end)
    process = place.start(start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **streams)
    os.close(end)
    os.set_blocking(terminal, False)

    def has_made_a_step() -> bool:  # before the first there is nothing to save
        with contextlib.suppress(OSError):
            os.read(terminal, 65536)  # a full terminal would stop what prints to it
        logs = place.folder.glob("store/runs/*/logs/*/*.log")
        return any('"kind":"progress"' in text and '"step"' in text for text in (log.read_text(encoding="utf-8") for log in logs))

    wait_until(has_made_a_step, 100)
    os.close(terminal)
    assert process.wait(timeout=100) == 130
    assert list(place.folder.glob("store/scratch/trajectory/*/state-*/*")), "the training's state is saved"
    place.run()
    assert [row for row in place.results() if row["epoch"] != 40] == finished.results()
