"""Trainings that start from another implementation's checkpoint, as their processes do it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edm2core.config import load_recipe
from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, snapshot_ref, trajectory_ref
from edm2core.snapshots import files as snapshot
from edm2core.snapshots.checkpoints import fx_names
from edm2core.stages import prepare, start, train
from edm2core.store import Store, open_store
from edm2core.store.results import load
from edm2core.worker.main import _work
from pipelines.inputs.user_files import resolve, upload
from tests.fx import write_checkpoint

SETTINGS = {"data.standardize": False, "network.multipliers": [1], "network.attention_resolutions": [], "training.batch": 256}
STEPS = 6  # an epoch of digits in batches of 256


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What FutureXiang/edm2 would save after four epochs."""
    return write_checkpoint(tmp_path / "model_3.pth", load_recipe("digits/E", SETTINGS), 4 * STEPS)


def tasks_of(folder: Path, epochs: str, **overrides: Any) -> dict[str, Task]:
    changes = json.dumps({**SETTINGS, **overrides})
    (folder / "e.yaml").write_text(f"name: x\nrecipes: [digits/E]\nepochs: [{epochs}]\nmetrics: []\nprobe: false\noverrides: {changes}\n")
    experiment = load_experiment(folder / "e.yaml")
    return {task.title: task for task in plan(experiment, resolve(experiment))}


@pytest.fixture
def started(tmp_path: Path, checkpoint: Path) -> tuple[Store, dict[str, Task]]:
    """The data prepared and the checkpoint read."""
    store = open_store(str(tmp_path / "store"))
    tasks = tasks_of(tmp_path, "4, 5", **{"start.checkpoint": "model_3.pth"})
    for task in tasks.values():
        if task.stage in ("prepare", "start"):
            _work(task, store, {"prepare": prepare.run, "start": start.run}[task.stage])
    return store, tasks


def made(store: Store, task: Task) -> Manifest:
    manifest = load(store, task.ref)
    assert manifest is not None
    return manifest


def test_a_checkpoint_becomes_a_snapshot_and_a_state(started: tuple[Store, dict[str, Task]], checkpoint: Path) -> None:
    store, tasks = started
    manifest = made(store, tasks["digits/E · read model_3.pth"])
    assert manifest.files.keys() == {"snapshot.json", "ema-fixed.safetensors", "state.safetensors"}
    assert (manifest.metadata["epoch"], manifest.metadata["updates"]) == (4, 24)
    assert manifest.metadata["checkpoint"] == manifest.settings["digest"]
    denoiser = snapshot.load(f"{store.uri}/{manifest.ref.folder}")
    ema = torch.load(checkpoint, weights_only=True)["EMA"]
    for ours, theirs in fx_names(denoiser).items():
        assert torch.equal(denoiser.state_dict()[ours], ema[f"ema_model.{theirs}"])


def test_a_training_goes_on_from_it_and_its_snapshots_say_so(started: tuple[Store, dict[str, Task]], checkpoint: Path) -> None:
    store, tasks = started
    train.work(tasks["E · seed 0 · train to epoch 5"], store)
    first, second = (made(store, tasks[f"E · seed 0 · train to epoch {epoch}"]) for epoch in (4, 5))
    assert first.metadata["emas"] == ["fixed"]
    assert second.metadata["emas"] == ["fixed", "0.050", "0.100"]
    folder = checkpoint.parent
    ema = load_file(store.fetch(first.path("ema-fixed.safetensors"), folder))
    read = torch.load(checkpoint, weights_only=True)["EMA"]
    assert torch.equal(ema["network.stem.weight"], read["ema_model.nn_model.image_proj.weight"])
    assert [json.loads(line)["step"] for line in store.read(second.path("curve.jsonl")).splitlines()] == [30]
    for manifest in (first, second):
        assert manifest.metadata["start"]["implementation"] == "FutureXiang/edm2"
        assert manifest.metadata["start"]["checkpoint"].startswith("sha256:")
        assert manifest.inputs["start"] == str(tasks["digits/E · read model_3.pth"].ref)
    assert second.metadata["images_seen"] == 5 * 1438


def test_what_was_imported_never_shares_a_key_with_what_began_anew(tmp_path: Path, checkpoint: Path) -> None:
    anew = tasks_of(tmp_path, "4, 5")
    refs = {ref for task in anew.values() for ref in (task.ref, *([trajectory_ref(task)] if task.stage == "snapshot" else []))}
    other = tmp_path / "model_4.pth"
    other.write_bytes(checkpoint.read_bytes())
    trajectories = set()
    for changes in (
        {"start.checkpoint": str(checkpoint)},
        {"start.checkpoint": str(checkpoint), "start.epoch": 3},
        {"start.checkpoint": str(other)},
    ):
        tasks = [task for task in tasks_of(tmp_path, "5", **changes).values() if task.stage != "prepare"]
        assert not refs & {task.ref for task in tasks}
        trajectories |= {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}
    assert not refs & trajectories
    assert len(trajectories) == 3


def test_where_a_checkpoint_lies_is_in_no_key(tmp_path: Path, checkpoint: Path) -> None:
    here = tasks_of(tmp_path, "5", **{"start.checkpoint": "model_3.pth"})
    (tmp_path / "elsewhere").mkdir()
    checkpoint.rename(tmp_path / "elsewhere" / "model_3.pth")
    there = tasks_of(tmp_path, "5", **{"start.checkpoint": str(tmp_path / "elsewhere" / "model_3.pth")})
    assert [task.ref for task in here.values()] == [task.ref for task in there.values()]


def test_an_epoch_lost_after_the_checkpoint_is_trained_again_from_it(started: tuple[Store, dict[str, Task]], tmp_path: Path) -> None:
    store, tasks = started
    task = tasks["E · seed 0 · train to epoch 5"]
    train.work(task, store)
    before = load_file(store.fetch(made(store, task).path("ema-fixed.safetensors"), tmp_path))
    later = Task(
        **{**vars(task), "settings": {**task.settings, "epoch": 6}, "wanted": (6,), "key": snapshot_ref(trajectory_ref(task), 6).key}
    )
    train.work(later, store)
    for entry in list(store.list(f"{task.ref.folder}/")):
        store.delete(entry.path)
    train.work(task, store)
    after = load_file(store.fetch(made(store, task).path("ema-fixed.safetensors"), tmp_path))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("epochs", "overrides", "words"),
    [
        ("3", {"start.checkpoint": "model_3.pth"}, "before the checkpoint"),
        ("5", {"start.checkpoint": "absent_3.pth"}, "absent_3.pth"),
        ("5", {"start.checkpoint": "model_3.pth", "data.standardize": True}, "standardize"),
    ],
)
def test_what_cannot_start_is_said_before_anything_runs(
    tmp_path: Path, checkpoint: Path, epochs: str, overrides: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        tasks_of(tmp_path, epochs, **overrides)
    assert raised.value.where


def test_without_an_optimisers_state_there_is_a_snapshot_and_no_training(
    started: tuple[Store, dict[str, Task]], checkpoint: Path, tmp_path: Path
) -> None:
    store = started[0]
    content = torch.load(checkpoint, weights_only=True)
    torch.save({"EMA": content["EMA"]}, checkpoint)
    tasks = tasks_of(tmp_path, "4, 5", **{"start.checkpoint": "model_3.pth"})
    _work(tasks["digits/E · read model_3.pth"], store, start.run)
    assert "state.safetensors" not in made(store, tasks["digits/E · read model_3.pth"]).files
    with pytest.raises(InputError, match="no optimiser state"):
        train.work(tasks["E · seed 0 · train to epoch 5"], store)
    first = made(store, tasks["E · seed 0 · train to epoch 4"])
    assert first.metadata["emas"] == ["fixed"]
    ema = load_file(store.fetch(first.path("ema-fixed.safetensors"), tmp_path))
    denoiser = snapshot.load(f"{store.uri}/{first.ref.folder}")
    for ours, theirs in fx_names(denoiser).items():  # the fixed Fourier features too, which are in no average
        assert torch.equal(ema[ours], content["EMA"][f"ema_model.{theirs}"]), ours


def test_where_the_users_disk_is_not_seen_the_stores_copy_is_read(tmp_path: Path, checkpoint: Path) -> None:
    store, said = open_store(str(tmp_path / "store")), list[str]()
    tasks = tasks_of(tmp_path, "5", **{"start.checkpoint": "model_3.pth"})
    upload(tasks.values(), store, said.append)
    checkpoint.unlink()
    assert [line.split()[1] for line in said] == [str(checkpoint)]
    _work(tasks["digits/E · read model_3.pth"], store, start.run)
    assert "state.safetensors" in made(store, tasks["digits/E · read model_3.pth"]).files


def test_a_checkpoint_that_changed_since_the_plan_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    tasks = tasks_of(tmp_path, "5", **{"start.checkpoint": "model_3.pth"})
    checkpoint.write_bytes(checkpoint.read_bytes() + b"more")
    with pytest.raises(InputError, match="digest is wrong"):
        _work(tasks["digits/E · read model_3.pth"], open_store(str(tmp_path / "store")), start.run)
