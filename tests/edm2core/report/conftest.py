"""A store filled as an experiment would, without training anything."""

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.provenance.science import science_of
from edm2core.report import Report, RunInfo, collect
from edm2core.store.local import LocalStore
from edm2core.store.results import commit, upload_files

OTHER, DIFF = "0123456789" * 2, "d" * 64  # another science, and how its code differed from its revision
DEMO = """\
name: digits-ceg
recipes: [digits/C, digits/E, digits/G]
seeds: [0]
epochs: [20, 40, 60]
sample: {count: 2000, steps: 18}
metrics: [fd]
probe: {t: [4], blocks: [out_3], epochs: 15, batch: 512, lr: 4.0e-3}
overrides: {training.epochs: 60}
"""
LEVEL = {"C": 1.0, "E": 0.72, "G": 0.61}
WIDTH = {"C": 0.025, "E": 0.075, "G": 0.1}  # the averages that serve best
STEPS = 23  # an epoch
PARAMETERS = 301_568
TRAIN, TEST = (
    {"digits": 1437, "own": 1437, "cifar10": 50_000, "cifar100": 50_000, "tinyimagenet": 100_000},
    {"digits": 360, "own": 360, "cifar10": 10_000, "cifar100": 10_000, "tinyimagenet": 10_000},
)


@dataclass
class Fake:
    """An experiment's plan in a store where the tasks that `make` was told to leave out are missing."""

    folder: Path
    text: str = DEMO
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage → over what the stage would record
    classes: tuple[str, str, str] = ("one", "two", "<three>")

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "experiment.yaml"
        file.write_text(self.text)
        experiment = load_experiment(file)
        digests = {f"data:{r.name}": "builtin:digits" if r.data.format == "digits" else f"sha256:{7:064x}" for r in experiment.recipes}
        self.name, self.recipes = experiment.name, experiment.recipes
        digests |= {f"code:{package}": code.content for package, code in experiment.code.items()}
        self.tasks = plan(experiment, {**digests, "inception": f"sha256:{1:064x}"})
        self.store = LocalStore(self.folder / "store")

    def make(self, leave_out: Callable[[Task], bool] = lambda _: False) -> "Fake":
        for task in self.tasks:
            if not leave_out(task):
                self.commit(task)
        return self

    def commit(self, task: Task, metadata: Mapping[str, Any] | None = None) -> Manifest:
        out = self.folder / "out" / task.key
        out.mkdir(parents=True)
        conditional = any(recipe.name == task.subject.recipe and recipe.network.classes for recipe in self.recipes)
        for name, data in _files(task, self.classes, conditional).items():
            (out / name).write_bytes(data)
        attempt = f"20250301T101500-{task.key[:8]}"
        metadata = {**task.subject.to_json(), **_metadata(task, self.tasks), **self.metadata.get(task.stage, {}), **(metadata or {})}
        inputs = {name: str(ref) for name, ref in task.inputs.items()}
        files = upload_files(self.store, task.ref, attempt, out)
        made = Manifest(
            task.stage, task.version, task.key, task.title, task.settings, inputs, {}, attempt, files, metadata, _provenance(task)
        )
        return commit(self.store, made)

    def report(self, run: RunInfo | None = None) -> Report:
        return collect(self.name, self.tasks, self.store, run or RunInfo(experiment=self.text))

    def find(self, stage: str, **subject: Any) -> Task:
        return next(t for t in self.tasks if t.stage == stage and subject.items() <= t.subject.to_json().items())


def by_several_sciences(fake: Fake, recipe: str) -> Fake:
    """All of it by this code's science, but of one recipe: its training went on under it after another's, its samples are another's."""
    for task in fake.tasks:
        metadata: dict[str, Any] = {}
        if task.stage == "snapshot" and task.subject.recipe == recipe and task.subject.epoch > 20:
            metadata["sciences"] = [{"from_step": 0, "science": OTHER}, {"from_step": 460, "science": science_of("snapshot")}]
        manifest = fake.commit(task, metadata)
        other = task.stage == "sample" and task.subject.recipe == recipe
        by = {"science": OTHER, "diff": DIFF} if other else {"science": science_of(task.stage)}
        fake.store.write(task.ref.manifest, replace(manifest, provenance={**manifest.provenance, **by}).dumps())
    return fake


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """The digits demo, nothing of it done yet."""
    return Fake(tmp_path)


@pytest.fixture
def another(tmp_path: Path) -> Callable[..., Fake]:
    """The demo with parts of its text replaced and lines added, all of it done."""

    def build(replace: Mapping[str, str] = MappingProxyType({}), add: str = "", *, make: bool = True) -> Fake:
        text = DEMO
        for old, new in replace.items():
            text = text.replace(old, new)
        fake = Fake(tmp_path, text + add)
        return fake.make() if make else fake

    return build


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """The digits demo, all of it done; not to be changed."""
    return Fake(tmp_path_factory.mktemp("demo")).make()


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """An experiment with all that a report shows, all of it done; not to be changed."""
    text = DEMO + "diagnostics: true\n"
    for old, new in {
        "seeds: [0]": "seeds: [0, 1]",
        "count: 2000": "count: 2000, draws: 2, ema: [fixed, 0.05, 0.1]",
        "[fd]": "[fd, precision, memorisation]",
        "t: [4], blocks: [out_3]": "t: [3, 4, 5], blocks: [out_1, out_2, out_3]",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return Fake(tmp_path_factory.mktemp("full"), text).make()


def _quality(task: Task) -> float:
    """How bad the samples are: falls along the training, differs by recipe, seed and the width of the average."""
    subject = task.subject
    ema = subject.ema
    away = 0.0 if ema == "fixed" else 20 * abs(float(ema) - WIDTH[subject.recipe[-1]]) - 0.2
    return (1 + away) * LEVEL.get(subject.recipe[-1], 0.9) * (0.12 + math.exp(-subject.epoch / 30)) * (1 + 0.03 * subject.seed)


def _metadata(task: Task, tasks: list[Task]) -> dict[str, Any]:
    dataset = task.subject.dataset
    if task.stage == "prepare":
        return {"counts": {"train": TRAIN[dataset], "test": TEST[dataset]}, "warning": None}
    if task.stage == "snapshot":
        epoch = task.subject.epoch
        return {"parameters": PARAMETERS, "step": epoch * STEPS, "images_seen": epoch * TRAIN[dataset]}
    if task.stage == "ema":
        return {"error": 0.001}
    if task.stage == "diagnostics":
        return _inside(task)
    if task.stage == "reference":
        return {"n": TRAIN[dataset]}
    if task.stage == "metrics":
        names = ["fd_digits" if metric == "fd" else metric for metric in task.settings["metrics"]]
        samples = next(other for other in tasks if other.ref == task.inputs["samples"])
        values = {name: 40 * _quality(task) / number for number, name in enumerate(names, 1)}
        near = {"samples": [3], "training": [5], "ratios": [0.125]}
        errors = dict.fromkeys(names, 0.25)
        return {"values": values, "standard_errors": errors, "n": samples.settings["count"], "extractor": "digits", "neighbours": near}
    if task.stage == "probe" and "snapshot" not in task.inputs:
        return {"pixel_accuracy": 95.83, "test_images": TEST[dataset]}
    if task.stage == "probe":
        best = 98.2 - 9 * _quality(task)
        cells = [
            {"t": t, "block": block, "validation_accuracy": best - abs(t - 4) * 1.5 - abs(i - 2) * 2.0}
            for t in task.settings["t"]
            for i, block in enumerate(task.settings["blocks"])
        ]
        chosen = max(cells, key=lambda cell: cell["validation_accuracy"])
        return {"probe_accuracy": best, "test_images": TEST[dataset], "cells": cells, "chosen": chosen}
    return {}


def _inside(task: Task) -> dict[str, Any]:
    """Magnitudes that grow in C alone, and losses that fall with the noise."""
    growth = task.subject.epoch / 10 if task.subject.recipe.endswith("C") else 1.0
    levels = [
        {"level": f"{part} {side}", "activation": growth * 8 / side, "weight": growth}
        for part, side in (("encoder", 8), ("encoder", 4), ("middle", 4), ("decoder", 4), ("decoder", 8))
    ]
    sigmas = [0.002, 0.4, 80.0]
    losses = [1.0, 0.3, 0.8]
    return {
        "levels": levels,
        "activation": growth * 1.6,
        "weight": growth,
        "sigmas": sigmas,
        "log_variance": [math.log(loss) + 0.1 for loss in losses],
        "train_loss": losses,
        "test_loss": [1.1 * loss for loss in losses],
    }


def _provenance(task: Task) -> dict[str, Any]:
    seconds = {"snapshot": 1.1 * task.subject.epoch, "sample": 6.3, "probe": 4.8}.get(task.stage, 1.7)
    return {
        "code_version": "0.1.0+4f2a9c1d77e0",
        "host": "workstation",
        "device": "x86_64 CPU, 2 cores",
        "world_size": 1,
        "seconds": seconds,
        "started": 1740823200.0,
        "python": "3.11.7",
        "packages": {"torch": "2.11.0", "numpy": "2.2.1", "altair": "6.3.0"},
    }


def _files(task: Task, classes: tuple[str, str, str], conditional: bool) -> dict[str, bytes]:
    if task.stage == "snapshot":
        return {"curve.jsonl": _curve(task), "ema-fixed.safetensors": b"weights"}
    if task.stage == "sample":
        grids = ("grid.png", "interpolations.png", *(["classes.png"] if conditional else []))
        return {name: _grid(_quality(task), task.settings["seed"]) for name in grids}
    if task.stage == "metrics" and "memorisation" in task.settings["metrics"]:
        return {"metrics.json": b"{}", "neighbours.png": _grid(0.1, 0)}
    if task.stage == "probe":
        return {"probe.json": json.dumps({"classes": classes, "confusion": [[8, 2, 0], [1, 9, 0], [0, 0, 10]]}, indent=1).encode()}
    if task.stage == "prepare":
        return {"train_images.npy": b"images", "train_labels.npy": b"labels"}
    return {"values.json": b"{}"}


def _curve(task: Task) -> bytes:
    noise = np.random.default_rng(task.subject.seed)
    training, lines = task.settings["training"], []
    for step in range(5, task.subject.epoch * STEPS + 1, 5):
        epoch = step / STEPS
        lr = training["lr"] * min(1, epoch / training["warmup_epochs"])
        if training["t_ref_epochs"]:
            lr /= math.sqrt(max(epoch / training["t_ref_epochs"], 1))
        loss = LEVEL.get(task.subject.recipe[-1], 0.9) * (0.2 + math.exp(-epoch / 6)) + noise.normal(0, 0.015)
        lines.append({"step": step, "epoch": epoch, "loss": loss, "lr": lr, "images_per_s": 1300.0, "nonfinite": 0})
        lines[-1]["relative_update"] = lr / 10
        if step == 20 * STEPS:
            lines.append({"restart": True, "step": step, "generation": 2})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _grid(badness: float, seed: int) -> bytes:
    """8 by 8 cells of 8 by 8 pixels: bars that drown in noise where the samples are bad."""
    noise = np.random.default_rng(seed)
    cells = np.zeros((8, 8, 8, 8))
    for row in range(8):
        for column in range(8):
            cells[row, :, column, 1 + (row + column) % 6] = 200
            cells[row, 1 + (row * 3 + column) % 6, column, :] = 200
    pixels = np.clip(cells.reshape(64, 64) + noise.normal(0, 150 * badness, (64, 64)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
