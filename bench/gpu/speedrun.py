"""A recipe's training as it is in use: the stage itself, with its data, states and snapshots, for a few minutes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edm2core.config import load_recipe
from edm2core.config.settings import Recipe, TrajectorySettings
from edm2core.data.prepared import INFO
from edm2core.events import parse
from edm2core.plan.manifest import Ref
from edm2core.plan.subject import Subject
from edm2core.plan.tasks import Task, own_key, snapshot_title
from edm2core.plan.versions import version_of
from edm2core.registry import FORMATS
from edm2core.store import open_store
from edm2core.store.results import commit
from edm2core.worker.main import manifest_of

SNAPSHOTS = 5  # of those that the recipe's training has, one at every `training.snapshot_every` epochs; here they come sooner
PATIENCE_S = 120  # for saving the state at the end


def speedrun(recipe: Recipe, images: int, seconds: float) -> dict[str, float]:
    """Train the recipe on so many random images for about `seconds`, a snapshot each fifth of the time.

    Returns images a second: `best` of the curve's rows, and `in_use` over all the time after compiling, with states and snapshots. Also
    the device's `peak_bytes_first` and `peak_bytes_last`, and how many `snapshots` there were. Raises RuntimeError where it ends too soon.
    """
    with tempfile.TemporaryDirectory(prefix="edm2-speedrun-") as folder:
        store = str(Path(folder) / "store")
        data = _random_data(store, recipe, images)
        events = _train(_task(recipe, data), store, seconds)
    return summed_up(events)


def summed_up(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What `speedrun` returns, from a training's events."""
    compiled = max((number for number, event in enumerate(events) if event["kind"] == "compiled"), default=-1)
    rows = [event for event in events[compiled + 1 :] if event["kind"] == "progress"][1:]  # the first has the warming up
    if len(rows) < 2:
        said = "; ".join(str(event.get("what") or event.get("message")) for event in events if event["kind"] in ("failed", "warning"))
        raise RuntimeError(f"the training ended after too few steps to tell: {said or 'give it more time'}")
    seen = sum(row["images_per_s"] * row["seconds"] for row in rows[1:])
    return {
        "best": max(row["images_per_s"] for row in rows),
        "in_use": seen / (rows[-1]["time"] - rows[0]["time"]),
        "peak_bytes_first": rows[0]["peak_memory"],
        "peak_bytes_last": rows[-1]["peak_memory"],
        "snapshots": sum(event["kind"] == "commit" for event in events),
    }


def _task(recipe: Recipe, data: Ref) -> Task:
    """The recipe's training to its last epoch, with snapshots at its first ones."""
    last = recipe.training.epochs
    trajectory = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    settings = {**trajectory.model_dump(mode="json"), "epoch": last}
    subject, early = Subject(recipe.dataset, epoch=last), tuple(range(1, min(SNAPSHOTS, last) + 1))
    title = snapshot_title(recipe.name, last)
    task = Task("snapshot", version_of("snapshot", settings), settings, {"data": data}, "", title, subject, wanted=early, short=recipe.name)
    return replace(task, key=own_key(task))


def _train(task: Task, store: str, seconds: float) -> list[dict[str, Any]]:
    """The events of the stage's process, which is asked to stop after so many seconds."""
    file = Path(store).parent / "task.json"
    file.write_text(json.dumps(task.to_json()), encoding="utf-8")
    command = [sys.executable, "-m", "edm2core.stages.train", str(file), "--store", store]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ)
    stopping = threading.Timer(seconds, process.send_signal, [signal.SIGTERM])
    stopping.start()
    try:
        assert process.stdout is not None
        events = [event for line in process.stdout if (event := parse(line))]
        process.wait(PATIENCE_S)
    finally:
        stopping.cancel()
        process.kill()
    return events


def _random_data(store: str, recipe: Recipe, images: int) -> Ref:
    """A prepared data set of random images in the store: speed does not depend on what they show."""
    network, known = recipe.network, FORMATS[recipe.data.format]
    shape, classes = (network.image_channels, network.resolution, network.resolution), known.classes or 10
    draw = np.random.default_rng(0)
    out = Path(store).parent / "data"
    out.mkdir(parents=True)
    counts = {"train": images, "test": max(images // 10, 1)}
    for part, count in counts.items():
        np.save(out / f"{part}_images.npy", draw.integers(0, 256, (count, *shape), dtype=np.uint8))
        np.save(out / f"{part}_labels.npy", draw.integers(0, classes, count))
    info: dict[str, object] = {
        "format": recipe.data.format,
        "classes": [str(number) for number in range(classes)],
        "shape": list(shape),
        "counts": counts,
        "affine": {"scale": 2.0, "offset": -1.0},
        "warning": None,
    }
    (out / INFO).write_text(json.dumps(info), encoding="utf-8")
    opened = open_store(store)
    task = Task("prepare", 1, {"format": recipe.data.format}, {}, "speedrun", "random images")
    return commit(opened, manifest_of(task, opened, {}, out, info, {})).ref


def recipe_of(name: str, rehearsal: bool) -> Recipe:
    """The recipe, or its digits variant at the smallest size."""
    small = {"training.batch": 4, "network.multipliers": [1], "network.attention_resolutions": [8]}
    return load_recipe(f"digits/{name.rpartition('/')[2]}", small) if rehearsal else load_recipe(name)
