"""A probe grid on a small trained network: a probe of its own for every cell, one pass a noise level for all, and the stage."""

import tempfile
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.compare import Side, Spread, in_turn, ratio
from bench.plain import network as plain_network
from bench.rows import Options, Result, Row
from bench.worker import Work
from edm2core.config import load_recipe
from edm2core.config.settings import ProbeSettings, TrajectorySettings
from edm2core.data import load_prepared, prepare_data
from edm2core.data.prepared import Prepared
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.layout import block_widths
from edm2core.diffusion.noise_levels import probe_sigma
from edm2core.diffusion.trainer import Trainer
from edm2core.diffusion.training_state import averaged_weights
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task
from edm2core.probe.cells import Cell
from edm2core.probe.features import Data, Labelled, Source
from edm2core.probe.heads import Heads
from edm2core.probe.scores import accuracy
from edm2core.snapshots import files as snapshot
from edm2core.stages import probe
from edm2core.store import open_store
from edm2core.store.results import commit
from edm2core.store.scratch import Scratch
from edm2core.worker.main import manifest_of
from edm2core.worker.workspace import Workspace, open_inputs

RECIPE, LEVELS, TRAINED = "digits/E", (3, 4, 5), 10  # epochs of training
GRID: dict[str, Any] = {"t": LEVELS, "blocks": ("all",), "epochs": 15, "batch": 64, "lr": 4e-3, "flip": False}


class Study(NamedTuple):
    """A snapshot and its data in a store of their own; half of the images are for test, so that accuracies are finer."""

    store: str
    snapshot: Ref
    data: Ref
    prepared: Prepared


@cache
def study(trained: int = TRAINED) -> Study:
    recipe = load_recipe(RECIPE, {"data.test_share": 0.5})
    store = open_store(tempfile.mkdtemp())
    work = _workspace(store.uri, "prepare", {}, {})
    work.metadata |= prepare_data(recipe.data, None, work.out)
    data = _commit(work)
    prepared = load_prepared(open_inputs(_task("probe", {}, {"data": data}), store, work.out.parent)["data"].all())
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    trainer = Trainer(settings, prepared.pixel_scale, torch.tensor(prepared.train_images).to(pick_device()))
    for _ in range(trained * len(prepared.train_labels) // recipe.training.batch):
        trainer.step()
    work = _workspace(store.uri, "snapshot", {}, {"data": data})
    snapshot.save(work.out, {"fixed": averaged_weights(trainer.state(), "fixed")}, settings, prepared.pixel_scale, epoch=trained)
    return Study(store.uri, _commit(work), data, prepared)


def plain_cell(trained: int = TRAINED, epochs: int = 15) -> Work:
    """One cell of each noise level as a script would: its own passes through all of the network, its own linear layer."""
    plain = _Plain(study(trained), epochs)

    def work() -> None:
        for t in LEVELS:
            plain.probes(t, plain.blocks[:1])

    return work


def shared_passes(trained: int = TRAINED, epochs: int = 15) -> Work:
    """FutureXiang/edm2's own way: one pass of the network a noise level serves the linear layers of all its blocks."""
    plain = _Plain(study(trained), epochs)

    def work() -> dict[str, float]:
        found = [value for t in LEVELS for value in plain.probes(t, plain.blocks)]
        return {f"cell {number}": value for number, value in enumerate(found)}

    return work


def product_grid(trained: int = TRAINED, epochs: int = 15) -> Work:
    """The stage: features cached, the cell chosen on held-out images, trained again on all."""
    made = study(trained)
    settings = ProbeSettings.model_validate({**GRID, "epochs": epochs})

    def work() -> dict[str, float]:
        space = _workspace(made.store, "probe", settings.model_dump(mode="json"), {"snapshot": made.snapshot, "data": made.data})
        probe.run(space)
        chosen = next(number for number, cell in enumerate(space.metadata["cells"]) if cell["chosen"])
        return {"chosen": chosen, "accuracy": space.metadata["probe_accuracy"]}

    return work


def cached_and_fresh(trained: int = TRAINED, epochs: int = 15, seeds: int = 3) -> Work:
    """Every cell's test accuracy by either way of the product, trained on all training images: the mean over cells and seeds."""
    made = study(trained)
    labelled = [
        Labelled(torch.tensor(images), torch.tensor(labels))
        for images, labels in (
            (made.prepared.train_images, made.prepared.train_labels),
            (made.prepared.test_images, made.prepared.test_labels),
        )
    ]
    data = Data(labelled[0], labelled[1], made.prepared.pixel_scale, len(made.prepared.classes))

    def means(features: str) -> list[float]:
        settings = ProbeSettings.model_validate({**GRID, "epochs": epochs, "seeds": tuple(range(seeds)), "features": features})
        inputs = {"snapshot": made.snapshot, "data": made.data}
        work = _workspace(made.store, "probe", settings.model_dump(mode="json"), inputs)
        network, cells = probe._features(work, settings, data.device)
        source = probe._Study(work, settings, data, network, cells).source
        return [fmean(_accuracies(source, settings, data, cells, seed)) for seed in settings.seeds]

    def work() -> dict[str, float]:
        fresh, cached = means("fresh"), means("cached")
        found = {"fresh": fmean(fresh), "cached": fmean(cached)}
        return found | ({"deviation": max(stdev(fresh), stdev(cached))} if seeds > 1 else {})

    return work


def _accuracies(source: Source, settings: ProbeSettings, data: Data, cells: list[Cell], seed: int) -> list[float]:
    found: list[float] = []
    train, test = (torch.arange(len(part)) for part in (data.train, data.test))
    for part in source.parts(cells):
        heads = Heads(source.widths, part, data.classes, settings, data.device, seed=seed)
        while heads.epochs < heads.last:
            heads.train_epoch(source.batches(heads.cells, train, seed, heads.epochs, settings.batch))
        best = heads.best(source.look(heads.cells, "test", test, seed), 1)
        found += [accuracy(classes[:, 0], data.test.labels) for classes in best.values()]
    return found


class _Plain:
    """Probes as reference scripts train them: eager, float32, NCHW, a loss read after every step."""

    def __init__(self, made: Study, epochs: int) -> None:
        self.epochs, recipe, data = epochs, load_recipe(RECIPE), made.prepared
        work = _workspace(made.store, "probe", {}, {"snapshot": made.snapshot})
        loaded = snapshot.load(work.inputs["snapshot"].all())
        self.denoiser = plain_network.Denoiser(recipe.unet).eval()
        self.denoiser.load_state_dict(loaded.state_dict())
        self.device = pick_device()
        self.denoiser.to(self.device)
        self.blocks = list(loaded.network.block_names)
        self.train, self.test = (_scaled(x, data).to(self.device) for x in (data.train_images, data.test_images))
        self.train_labels, self.test_labels = (torch.tensor(x).to(self.device) for x in (data.train_labels, data.test_labels))

    def probes(self, t: int, blocks: list[str]) -> list[float]:
        """Test accuracies of a level's blocks."""
        torch.manual_seed(0)
        widths = {name: x.shape[1] for name, x in self._features(self.test[:1], t).items()}
        layers = {name: nn.Linear(widths[name], 10).to(self.device) for name in blocks}
        adams = {name: torch.optim.Adam(layer.parameters(), lr=GRID["lr"]) for name, layer in layers.items()}
        schedules = {name: torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.epochs) for name, adam in adams.items()}
        for _ in range(self.epochs):
            for index in torch.randperm(len(self.train), device=self.device).split(GRID["batch"]):
                found, labels = self._features(self.train[index], t), self.train_labels[index]
                for name, layer in layers.items():
                    loss = nn.functional.cross_entropy(layer(found[name]), labels)
                    adams[name].zero_grad()
                    loss.backward()
                    adams[name].step()
                    loss.item()
            for schedule in schedules.values():
                schedule.step()
        hits = dict.fromkeys(blocks, 0)
        for images, labels in zip(self.test.split(GRID["batch"]), self.test_labels.split(GRID["batch"]), strict=True):
            found = self._features(images, t)
            for name, layer in layers.items():
                hits[name] += int((layer(found[name]).argmax(1) == labels).sum())
        return [100 * count / len(self.test) for count in hits.values()]

    @torch.no_grad()
    def _features(self, images: Tensor, t: int) -> dict[str, Tensor]:
        sigma = probe_sigma(t)
        return self.denoiser.features(
            images + sigma * torch.randn_like(images), torch.full((len(images), 1, 1, 1), sigma, device=self.device)
        )


def _scaled(images: np.ndarray, data: Prepared) -> Tensor:
    scaled: Tensor = data.pixel_scale.to_network(torch.tensor(images).float() / 255)
    return scaled


def _task(stage: str, settings: dict[str, object], inputs: dict[str, Ref]) -> Task:
    return Task(stage, 1, settings, inputs, "bench", stage)


def _workspace(store: str, stage: str, settings: dict[str, object], inputs: dict[str, Ref]) -> Workspace:
    folder, opened, task = Path(tempfile.mkdtemp()), open_store(store), _task(stage, settings, inputs)
    (folder / "out").mkdir()
    scratch = Scratch(opened, f"scratch/{folder.name}", 1)
    return Workspace(task, opened, folder / "out", scratch, open_inputs(task, opened, folder / "inputs"))


def _commit(work: Workspace) -> Ref:
    return commit(work.store, manifest_of(work.task, work.store, work.inputs, work.out, work.metadata, {})).ref


def _grid(options: Options) -> Result:
    sides = {
        "plain": Side("bench.probe:plain_cell", {}, options.bare),
        "shared": Side("bench.probe:shared_passes", {}, options.bare),
        "product": Side("bench.probe:product_grid", {}, options.tuned),
    }
    found = in_turn(sides, min(options.repeats, 3), warmup=0)
    blocks = len(block_widths(load_recipe(RECIPE).unet))
    for run in found["plain"]:
        run |= {name: blocks * run[name] for name in ("seconds", "cpu_seconds")}
    chosen = int(found["product"][0]["chosen"])
    apart = found["product"][0]["accuracy"] - found["shared"][0][f"cell {chosen}"]
    seconds = {name: Spread.of([run["seconds"] for run in runs]) for name, runs in found.items()}
    return Result(
        f"{ratio(found, 'plain', 'product').text(1)}×; {ratio(found, 'shared', 'product').text(1)}× one pass a level for all blocks; "
        f"the chosen cell's accuracy {apart:+.2f} points",
        f"{seconds['plain'].text(0)} s",
        f"{seconds['product'].text(1)} s",
        cpu=f"{ratio(found, 'plain', 'product', 'cpu_seconds').text(1)}×",
    )


def _accuracy(options: Options) -> Result:
    (run,) = in_turn({"product": Side("bench.probe:cached_and_fresh", {}, options.tuned)}, 1, warmup=0)["product"]
    apart = run["cached"] - run["fresh"]
    return Result(f"{apart:+.2f} points (seeds ± {run['deviation']:.2f})", f"{run['fresh']:.2f} %", f"{run['cached']:.2f} %")


ROWS = [
    Row("probe grid", f"3 noise levels × all blocks, 15 epochs, {RECIPE} after {TRAINED} epochs, {{threads}} threads", "≥ 10×", _grid),
    Row(
        "probe accuracy",
        f"cached against fresh features: mean over the 15 cells of {RECIPE} and 3 seeds, 898 test images",
        "within 0.3 points",
        _accuracy,
    ),
]
