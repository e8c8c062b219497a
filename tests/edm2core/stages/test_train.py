"""Training as its process does it: snapshots as they are wanted, states that survive anything, one curve."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edm2core.diffusion.trainer import Trainer
from edm2core.errors import Interrupted
from edm2core.events import parse
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, snapshot_ref, trajectory_ref
from edm2core.snapshots.three_bytes import REST, unpacked
from edm2core.stages import prepare, train
from edm2core.store import Store, open_store
from edm2core.store.averages import stored_averages
from edm2core.store.results import load
from edm2core.store.wanted_epochs import want
from edm2core.worker import signals
from edm2core.worker.main import _work
from tests.waiting import wait_until

EXPERIMENT = """
name: tiny
recipes: [digits/G]
epochs: [1, 2]
metrics: []
probe: false
overrides:
  {network.multipliers: [1], network.attention_resolutions: [], network.dropout: 0.1, data.test_share: 0.95, training.batch: 16,
   training.average_every: 1}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Task]]:
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "e.yaml").write_text(EXPERIMENT)
    tasks = plan(load_experiment(folder / "e.yaml"), {"data:digits/G": "builtin:digits"})
    _work(tasks[0], open_store(str(folder / "store")), prepare.run)
    return folder / "store", tasks


@pytest.fixture
def store(prepared: tuple[Path, list[Task]], tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    subprocess.run(["cp", "-r", str(prepared[0] / "results"), str(tmp_path / "store")], check=True)
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def task(prepared: tuple[Path, list[Task]]) -> Task:
    return next(task for task in prepared[1] if task.stage == "snapshot")


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask this process to stop, as a signal would, during a step."""
    monkeypatch.setattr(signals, "_asked", [])

    moment, original = [0], Trainer.step

    def counted(trainer: Trainer) -> None:
        original(trainer)
        if trainer.steps == moment[0]:
            signals._asked.append(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", counted)

    def arrange(step: int) -> None:
        signals._asked.clear()
        moment[0] = step

    return arrange


def weights(store: Store, task: Task, epoch: int, folder: Path, ema: str = "fixed") -> dict[str, torch.Tensor]:
    manifest = snapshot(store, task, epoch)
    return load_file(store.fetch(manifest.path(f"ema-{ema}.safetensors"), folder))


def snapshot(store: Store, task: Task, epoch: int) -> Manifest:
    manifest = load(store, snapshot_ref(trajectory_ref(task), epoch))
    assert manifest is not None
    return manifest


def curve(store: Store, task: Task, epoch: int) -> list[dict[str, Any]]:
    manifest = snapshot(store, task, epoch)
    return [json.loads(line) for line in store.read(manifest.path("curve.jsonl")).splitlines()]


def losses(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def undisturbed(prepared: tuple[Path, list[Task]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Task]:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(["cp", "-r", str(prepared[0]), str(folder)], check=True)
    task = next(task for task in prepared[1] if task.stage == "snapshot")
    train.work(task, open_store(str(folder / "store")))
    return open_store(str(folder / "store")), task


def test_one_training_makes_every_wanted_snapshot(undisturbed: tuple[Store, Task]) -> None:
    store, task = undisturbed
    for epoch in (1, 2):
        manifest = snapshot(store, task, epoch)
        assert {"ema-fixed.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors", "curve.jsonl"} <= manifest.files.keys()
        assert manifest.title == f"G · seed 0 · train to epoch {epoch}"
        assert manifest.metadata["epoch"] == epoch
    assert [row["step"] for row in curve(store, task, 2)] == [6, 12]
    assert list(store.list(f"{trajectory_ref(task).scratch}/tensorboard/"))


def test_progress_is_that_of_the_next_snapshot_under_its_title(store: Store, task: Task, capfd: pytest.CaptureFixture[str]) -> None:
    train.work(task, store)
    events = [event for line in capfd.readouterr().out.splitlines() if (event := parse(line)) and event["kind"] == "progress"]
    assert [(event["task"], event["target"], event["done"], event["total"], event["eta_s"]) for event in events] == [
        (f"G · seed 0 · train to epoch {epoch}", epoch, 6, 6, 0) for epoch in (1, 2)
    ]


def test_averages_are_stored_on_a_grid_of_their_own(undisturbed: tuple[Store, Task], tmp_path: Path) -> None:
    store, task = undisturbed
    stored = stored_averages(store, trajectory_ref(task), 2)
    assert list(stored) == [1, 2]
    average = load_file(store.fetch(stored[2].path("ema-0.050.safetensors"), tmp_path))
    names = {name.removesuffix(REST) for name in average}
    full = weights(store, task, 2, tmp_path, "0.050")
    assert full.keys() - names == {name for name in full if name.endswith(("frequencies", "phases"))}
    for name in names:  # in three bytes a number, of which the first two are half precision
        assert torch.equal(average[name], full[name].half())
        torch.testing.assert_close(unpacked(average, name), full[name].double(), rtol=2**-18, atol=2**-32)


def test_averages_do_not_depend_on_the_epochs_that_are_looked_at(store: Store, task: Task) -> None:
    last = Task(
        **{**vars(task), "settings": {**task.settings, "epoch": 3}, "wanted": (3,), "key": snapshot_ref(trajectory_ref(task), 3).key}
    )
    train.work(last, store)
    assert list(stored_averages(store, trajectory_ref(task), 3)) == [1, 2, 3]


@pytest.mark.parametrize("step", [2, 6, 9])
def test_a_stopped_training_goes_on_with_the_same_bits_and_one_curve(
    store: Store, task: Task, stop_at: Callable[[int], None], undisturbed: tuple[Store, Task], tmp_path: Path, step: int
) -> None:
    stop_at(step)
    with pytest.raises(Interrupted):
        train.work(task, store)
    stop_at(0)
    train.work(task, store)
    whole = weights(*undisturbed, 2, tmp_path)
    resumed = weights(store, task, 2, tmp_path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    rows = curve(store, task, 2)
    assert losses(rows) == losses(curve(*undisturbed, 2))
    assert [(row["step"], row["generation"]) for row in rows if row.get("restart")] == [(step, 2)]
    assert list(stored_averages(store, trajectory_ref(task), 2)) == [1, 2]


def test_a_damaged_state_is_passed_over_for_the_one_before(
    store: Store,
    task: Task,
    stop_at: Callable[[int], None],
    undisturbed: tuple[Store, Task],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for step in (3, 8):
        stop_at(step)
        with pytest.raises(Interrupted):
            train.work(task, store)
    stop_at(0)
    states = sorted((tmp_path / "store").glob("scratch/trajectory/*/state-*/*.bytes"), key=lambda path: path.stat().st_mtime)
    data = bytearray(states[-1].read_bytes())
    data[len(data) // 2] ^= 1
    states[-1].write_bytes(data)
    capfd.readouterr()
    train.work(task, store)
    events = [event for line in capfd.readouterr().out.splitlines() if (event := parse(line))]
    assert any(event["kind"] == "warning" and "damaged" in event["message"] for event in events)
    assert [event["step"] for event in events if event["kind"] == "restart"] == [6]  # the state that the snapshot at epoch 1 came with
    whole, resumed = weights(*undisturbed, 2, tmp_path), weights(store, task, 2, tmp_path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_what_was_killed_between_the_state_and_the_snapshot_commits_it_without_training_on(
    store: Store, task: Task, undisturbed: tuple[Store, Task], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train.work(task, store)
    for entry in list(store.list(f"{snapshot_ref(trajectory_ref(task), 2).folder}/")):
        store.delete(entry.path)
    capfd.readouterr()
    train.work(task, store)
    events = [event for line in capfd.readouterr().out.splitlines() if (event := parse(line))]
    assert [event["step"] for event in events if event["kind"] == "restart"] == [12]
    assert not any(event["kind"] == "progress" for event in events)
    whole, resumed = weights(*undisturbed, 2, tmp_path), weights(store, task, 2, tmp_path)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_an_earlier_epoch_than_the_state_is_trained_again_and_the_state_ahead_used_afterwards(
    store: Store, task: Task, undisturbed: tuple[Store, Task], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = Task(
        **{**vars(task), "settings": {**task.settings, "epoch": 3}, "wanted": (3,), "key": snapshot_ref(trajectory_ref(task), 3).key}
    )
    train.work(last, store)
    train.work(Task(**{**vars(task), "wanted": (1, 4)}), store)
    events = [event for line in capfd.readouterr().out.splitlines() if (event := parse(line))]
    assert [event["step"] for event in events if event["kind"] == "restart"][-1] == 18
    assert torch.equal(weights(store, task, 1, tmp_path)["network.stem.weight"], weights(*undisturbed, 1, tmp_path)["network.stem.weight"])
    assert snapshot(store, task, 4)


def test_an_epoch_that_is_wanted_only_as_it_ends_is_not_trained_again(
    store: Store, task: Task, undisturbed: tuple[Store, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, steps = Trainer.step, list[int]()

    def counted(trainer: Trainer) -> None:
        original(trainer)
        steps.append(trainer.steps)
        if trainer.steps == 8:
            want(store, trajectory_ref(task), "late", (2,))

    monkeypatch.setattr(Trainer, "step", counted)
    third = Task(
        **{**vars(task), "settings": {**task.settings, "epoch": 3}, "wanted": (1, 3), "key": snapshot_ref(trajectory_ref(task), 3).key}
    )
    train.work(third, store)
    assert steps == list(range(1, 19))
    whole, late = weights(*undisturbed, 2, tmp_path), weights(store, task, 2, tmp_path)
    assert all(torch.equal(late[name], whole[name]) for name in whole)


def test_a_batch_of_more_images_than_there_are_is_warned_of(store: Store, task: Task, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {**task.settings, "training": {**task.settings["training"], "batch": 5000}}
    train.work(Task(**{**vars(task), "settings": settings, "wanted": (1,)}), store)
    said = [event["message"] for line in capfd.readouterr().out.splitlines() if (event := parse(line)) and event["kind"] == "warning"]
    assert said == ["training.batch is 5000; a step has all 90 images there are."]


def test_epochs_that_another_run_wants_are_made_too(store: Store, task: Task) -> None:
    want(store, trajectory_ref(task), "other-run", (3,))
    train.work(Task(**{**vars(task), "wanted": (1,)}), store)
    assert snapshot(store, task, 3)


@pytest.mark.slow
def test_signals_save_and_kills_lose_little_in_the_real_process(
    store: Store, task: Task, undisturbed: tuple[Store, Task], tmp_path: Path
) -> None:
    """SIGTERM at start-up, SIGTERM in the middle, SIGKILL, then to the end."""
    (tmp_path / "task.json").write_text(json.dumps(task.to_json()))
    command = [sys.executable, "-m", "edm2core.stages.train", str(tmp_path / "task.json"), "--store", store.uri]
    codes = []
    for number, moment in ((signal.SIGTERM, "import"), (signal.SIGTERM, '"kind":"start"'), (signal.SIGKILL, '"kind":"start"')):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert process.stdout is not None
        if moment == "import":
            wait_until(lambda pid=process.pid: "libtorch" in Path(f"/proc/{pid}/maps").read_text())  # type: ignore[misc]
        else:
            next(line for line in process.stdout if moment in line)
        process.send_signal(number)
        process.stdout.read()
        codes.append(process.wait(60))
    assert codes == [143, 143, -9]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    assert list(stored_averages(store, trajectory_ref(task), 2)) == [1, 2]
    whole, resumed = weights(*undisturbed, 2, tmp_path), weights(store, task, 2, tmp_path)
    assert all(torch.allclose(resumed[name], whole[name], atol=1e-5) for name in whole)


@pytest.mark.slow
def test_where_nothing_can_be_compiled_training_goes_on_as_it_is(
    store: Store, task: Task, undisturbed: tuple[Store, Task], tmp_path: Path
) -> None:
    asked = {**task.settings, "training": {**task.settings["training"], "compile": "always"}}
    command = [sys.executable, "-m", "edm2core.stages.train", json.dumps(Task(**{**vars(task), "settings": asked}).to_json())]
    without_compiler = {**os.environ, "CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "none")}
    done = subprocess.run([*command, "--store", store.uri], env=without_compiler, capture_output=True, text=True, check=True)
    said = [event["message"] for line in done.stdout.splitlines() if (event := parse(line)) and event["kind"] == "warning"]
    assert len(said) == 1
    assert said[0].startswith("The network runs as it is, since compiling it failed after")
    assert [row["compiled"] for row in curve(store, task, 2) if "compiled" in row] == [False]
    assert losses(curve(store, task, 2)) == losses(curve(*undisturbed, 2))


def test_training_does_not_wait_for_a_store_that_is_away_while_epochs_are_missing(
    store: Store, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, passed = threading.Event(), list[bool]()
    original, step = train.wanted_epochs, Trainer.step

    def slow(*arguments: Any) -> list[int]:
        if passed and not back.is_set():
            assert back.wait(60)
        return list(original(*arguments))

    def counted(trainer: Trainer) -> None:
        step(trainer)
        passed.append(back.is_set())
        if trainer.steps == 10:
            back.set()

    monkeypatch.setattr(train, "ANSWER_S", 0.05)
    monkeypatch.setattr(train, "wanted_epochs", slow)
    monkeypatch.setattr(Trainer, "step", counted)
    train.work(task, store)
    assert passed.count(False) == 10  # four of them after an epoch at whose end the store did not answer
    assert snapshot(store, task, task.settings["epoch"])
