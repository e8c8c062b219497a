"""Work that was begun by other code: a training goes on only where that is accepted, and says so; parts of others are not used."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edm2core.errors import InputError, Interrupted
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, snapshot_ref, trajectory_ref
from edm2core.provenance import science
from edm2core.stages import prepare, sample, train
from edm2core.store import Store, open_store
from edm2core.store.averages import stored_averages
from edm2core.store.results import load
from edm2core.store.scratch import STATE_SLOTS, Scratch
from edm2core.worker import signals
from edm2core.worker.main import make
from edm2core.worker.workspace import Workspace

EXPERIMENT = """
name: tiny
recipes: [digits/C]
epochs: [1, 2]
metrics: [fd]
probe: false
overrides:
  network.multipliers: [1]
  network.attention_resolutions: []
  data.test_share: 0.95
  training.batch: 32
  training.ema_sigma_rel: [0.1]
  training.average_every: 1
  sample.count: 65
  sample.steps: 2
  sample.shard: 5
"""
A, B, C = "a" * 20, "b" * 20, "c" * 20


@pytest.fixture
def of_science(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let everything here be of this science from now on."""

    def be(digest: str) -> None:
        monkeypatch.setattr(train, "science_of", lambda stage: digest)
        monkeypatch.setattr("edm2core.worker.main.science_of", lambda stage: digest)

    return be


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    return plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})


@pytest.fixture
def store(tmp_path: Path, tasks: list[Task]) -> Store:
    store = open_store(str(tmp_path / "store"))
    make(tasks[0], store, prepare.run)
    return store


@pytest.fixture
def snapshots(tasks: list[Task]) -> list[Task]:
    """The tasks of epochs 1 and 2, each of which wants no other."""
    return [replace(task, wanted=()) for task in tasks if task.stage == "snapshot"]


def trained(store: Store, task: Task, epoch: int | None = None) -> tuple[Manifest, list[dict[str, Any]]]:
    """A snapshot's manifest and curve."""
    manifest = load(store, snapshot_ref(trajectory_ref(task), epoch or task.settings["epoch"]))
    assert manifest is not None
    return manifest, [json.loads(line) for line in store.read(manifest.path("curve.jsonl")).splitlines()]


def test_a_training_is_not_continued_under_other_science(store: Store, snapshots: list[Task], of_science: Callable[[str], None]) -> None:
    of_science(A)
    train.work(snapshots[0], store)
    of_science(B)
    with pytest.raises(InputError) as refused:
        train.work(snapshots[1], store)
    assert f"({A[:10]}, " in refused.value.what
    assert f"({B[:10]}, " in refused.value.what
    assert "--accept-code" in refused.value.do_next
    assert load(store, snapshots[1].ref) is None


def test_where_it_is_accepted_the_curve_the_snapshots_and_the_averages_carry_the_mark(
    store: Store, snapshots: list[Task], of_science: Callable[[str], None]
) -> None:
    of_science(A)
    train.work(snapshots[0], store)
    of_science(B)
    train.work(replace(snapshots[1], accept_code=True), store)
    manifest, curve = trained(store, snapshots[1])
    steps = max(row["step"] for row in trained(store, snapshots[0])[1])
    (mark,) = [row for row in curve if "science" in row]
    assert (mark["step"], mark["science_before"], mark["science"]) == (steps, A, B)
    several = [{"from_step": 0, "science": A}, {"from_step": steps, "science": B}]
    assert manifest.metadata["sciences"] == several
    assert manifest.science == B
    averages = stored_averages(store, trajectory_ref(snapshots[0]), 2)
    assert averages[2].metadata["sciences"] == several
    assert "sciences" not in averages[1].metadata
    assert "sciences" not in trained(store, snapshots[0])[0].metadata


def test_what_goes_on_under_its_own_science_again_carries_no_further_mark(
    store: Store, snapshots: list[Task], of_science: Callable[[str], None]
) -> None:
    of_science(A)
    train.work(snapshots[0], store)
    of_science(B)
    train.work(replace(snapshots[1], accept_code=True), store)
    third = replace(snapshots[1], settings={**snapshots[1].settings, "epoch": 3}, key=snapshot_ref(trajectory_ref(snapshots[1]), 3).key)
    train.work(third, store)  # what was accepted once is its science
    assert len(trained(store, third)[0].metadata["sciences"]) == 2


def test_a_state_whose_science_was_not_recorded_is_continued_with_a_mark(
    store: Store, snapshots: list[Task], of_science: Callable[[str], None]
) -> None:
    of_science("")
    train.work(snapshots[0], store)
    of_science(B)
    train.work(snapshots[1], store)
    manifest, curve = trained(store, snapshots[1])
    assert [row["science_before"] for row in curve if "science" in row] == ["unknown"]
    assert [part["science"] for part in manifest.metadata["sciences"]] == ["unknown", B]


def test_sciences_that_are_equal_continue_each_other_without_a_mark(
    store: Store, snapshots: list[Task], of_science: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(science, "equal", lambda: {B: A})
    of_science(A)
    train.work(snapshots[0], store)
    of_science(B)
    train.work(snapshots[1], store)
    manifest, curve = trained(store, snapshots[1])
    assert "sciences" not in manifest.metadata
    assert [row for row in curve if "restart" in row]
    assert not [row for row in curve if "science" in row]


def test_what_was_trained_anew_is_not_continued_from_a_later_state_of_other_science(
    store: Store, snapshots: list[Task], of_science: Callable[[str], None]
) -> None:
    of_science(A)
    train.work(snapshots[1], store)
    store.delete(snapshots[1].ref.manifest)
    kept = Scratch(store, trajectory_ref(snapshots[0]).scratch, 10**5)
    for slot in STATE_SLOTS:  # only states from epoch 2 on are left
        if (about := kept.about(slot)) and about["epochs"] < 2:
            for entry in store.list(f"{kept.prefix}/{slot}/"):
                store.delete(entry.path)
    of_science(B)
    train.work(replace(snapshots[0], wanted=(1, 2)), store)
    manifest, curve = trained(store, snapshots[1])
    assert manifest.science == B
    assert not [row for row in curve if "science" in row or "restart" in row]


def test_finished_shards_of_other_science_are_drawn_again(
    store: Store, tasks: list[Task], snapshots: list[Task], of_science: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_science(A)
    train.work(snapshots[0], store)
    drawing = next(task for task in tasks if task.stage == "sample" and task.inputs["snapshot"] == snapshots[0].ref)

    def black(*_: object, **__: object) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.zeros((5, 1, 8, 8), np.uint8)

    def stopped(work: Workspace) -> None:
        settings = sample.SampleSettings.model_validate({k: v for k, v in work.settings.items() if k != "draw"})
        with monkeypatch.context() as patch:
            patch.setattr(sample, "draw_images", black)
            sample._draw_shards(work, settings, [0, 1], *sample._networks(work, settings))
        raise Interrupted("Stopped.")

    with pytest.raises(Interrupted):
        make(drawing, store, stopped)
    of_science(B)
    make(drawing, store, sample.run)
    manifest = load(store, drawing.ref)
    assert manifest is not None
    first = np.load(store.fetch(manifest.path("samples-00000.npy"), Path("/nowhere")))
    assert first.any()
    assert not list(store.list(f"{drawing.ref.scratch}/"))


def test_finished_shards_of_the_same_science_are_used(
    store: Store, tasks: list[Task], snapshots: list[Task], of_science: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_science(A)
    train.work(snapshots[0], store)
    drawing = next(task for task in tasks if task.stage == "sample" and task.inputs["snapshot"] == snapshots[0].ref)
    drawn: list[int] = []
    draw = sample.draw_images

    def counted(*arguments: Any) -> Any:
        drawn.append(arguments[3].start)
        if len(drawn) == 3:
            signals._asked.append(signal.SIGTERM)
        return draw(*arguments)

    monkeypatch.setattr(signals, "_asked", [])
    monkeypatch.setattr(sample, "draw_images", counted)
    with pytest.raises(Interrupted):
        make(drawing, store, sample.run)
    signals._asked.clear()
    make(drawing, store, sample.run)
    assert sorted(set(drawn)) == list(range(0, 65, 5))
    assert len(drawn) == 13 + 1  # only what was being drawn as it was stopped is drawn twice
