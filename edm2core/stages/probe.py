"""Trains linear probes on a snapshot's features, or on raw pixels where there is no snapshot."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from edm2core.config.settings import ProbeSettings
from edm2core.data import load_prepared
from edm2core.data.prepared import Prepared
from edm2core.data.split import ClassCount, enough_to_probe
from edm2core.diffusion.devices import compute, pick_device
from edm2core.diffusion.folding import prepare_for_inference
from edm2core.probe import scores
from edm2core.probe.cells import PIXELS, Cell, FeaturesOf, cells_of, denoiser_features, pixel_features
from edm2core.probe.features import Cached, Data, Fresh, Labelled, Source, Split
from edm2core.probe.heads import Heads
from edm2core.snapshots import files as snapshot
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace

SAVE_EVERY_S = 20.0
TOP, TOP_CLASSES = 5, 20  # the five likeliest classes count too where there are so many


def run(work: Workspace) -> None:
    """Result: probe.json, accuracies in percent, each the mean over the probe's seeds.

    One cell is trained on all training images. A grid's cells are trained without the validation images and the cell is chosen on them;
    it, and the cell that the test images would have chosen, are then trained again on all training images. Under a published protocol
    nothing is held out, and a grid's cell is chosen on the test images.
    """
    settings, device = ProbeSettings.model_validate(work.settings), pick_device()
    compute(tf32=not settings.exact, deterministic=settings.exact)
    prepared = load_prepared(work.inputs["data"].all())
    check(prepared, settings, work.inputs["data"].manifest.title)
    train, test = (
        Labelled(torch.tensor(images).to(device), torch.tensor(labels).to(device))
        for images, labels in ((prepared.train_images, prepared.train_labels), (prepared.test_images, prepared.test_labels))
    )
    data = Data(train, test, prepared.pixel_scale, len(prepared.classes))
    features, cells = _features(work, settings, device)
    study = _Study(work, settings, data, features, cells)
    outcome = _choose(study, cells)
    _write(study, outcome, _extras(study, outcome.chosen), prepared.classes)


@dataclass(frozen=True)
class _Outcome:
    """The outcome of all cells. A grid's accuracies are means over the seeds."""

    rows: list[dict[str, Any]]
    chosen: Cell
    by: str
    best: list[Tensor]  # for each seed, the chosen cell's likeliest classes [N, k] of the test images
    on_test: Cell | None = None  # the cell that the test images would have chosen, if something else chose
    best_on_test: list[Tensor] = field(default_factory=list)
    validation_images: int = 0


def _choose(study: "_Study", cells: list[Cell]) -> _Outcome:
    settings, data = study.settings, study.data
    held = torch.empty(0, dtype=torch.int64, device=data.device)
    learned = study.everything
    if settings.holds_out:
        learned, held = scores.stratified_split(data.train.labels, settings.validation_share, settings.seeds[0])
    validation: dict[Cell, list[float]] = {cell: [] for cell in cells}
    test: dict[Cell, list[float]] = {cell: [] for cell in cells}
    best: dict[Cell, list[Tensor]] = {cell: [] for cell in cells}
    for seed in settings.seeds:
        for heads in study.trained(cells, learned, seed, "grid" if settings.grid else "probe"):
            for cell, classes in study.best(heads, held).items() if len(held) else ():
                validation[cell].append(scores.accuracy(classes[:, 0], data.train.labels[held]))
            for cell, classes in study.best(heads).items():
                best[cell].append(classes)
                test[cell].append(scores.accuracy(classes[:, 0], data.test.labels))
    on_test = {cell: scores.mean_and_deviation(test[cell])[0] for cell in cells}
    on_validation = {cell: scores.mean_and_deviation(validation[cell])[0] for cell in cells} if len(held) else None
    chosen, would = scores.choose(on_validation or on_test), scores.choose(on_test)
    rows = [  # only the chosen cell's accuracy on the test images counts, the others' are for looking at
        _named(cell)
        | {"validation_accuracy": on_validation and on_validation[cell], "test_accuracy": on_test[cell], "chosen": cell == chosen}
        for cell in cells
    ]
    if not settings.holds_out:
        return _Outcome(rows, chosen, "test accuracy" if settings.grid else "settings", best[chosen])
    again: dict[Cell, list[Tensor]] = {chosen: [], would: []}
    for seed in settings.seeds:
        for heads in study.trained(list(again), study.everything, seed, "all"):
            for cell, classes in study.best(heads).items():
                again[cell].append(classes)
    return _Outcome(rows, chosen, "validation accuracy", again[chosen], would, again[would], len(held))


def _extras(study: "_Study", cell: Cell) -> dict[str, list[Tensor]]:
    """Hits of each seed of the k-NN classifier and the few-shot probes at the chosen cell. Their features are computed once."""
    settings, data = study.settings, study.data
    if not (settings.knn or settings.few_shot):
        return {}
    source = study.source if isinstance(study.source, Cached) else study.cached([cell], "features-chosen")
    extras: dict[str, list[Tensor]] = {}
    if settings.knn:
        looks = [source.look([cell], split, index, settings.seeds[0]) for split, index in study.splits]
        bank, looked = (torch.cat([group[0] for (group,), _ in look]) for look in looks)
        classes = scores.nearest(bank, data.train.labels, looked, settings.knn, data.classes)
        extras["knn_accuracy"] = [scores.hits(classes, data.test.labels)]
    for share in settings.few_shot:
        name = f"probe_accuracy_{share:.3%}".rstrip("%").rstrip("0").rstrip(".") + "pct"
        for seed in settings.seeds:
            index = scores.few_of_each(data.train.labels, share, seed)
            (heads,) = study.trained([cell], index, seed, f"few-{share:g}", source)
            classes = study.best(heads, source=source)[cell]
            extras.setdefault(name, []).append(scores.hits(classes[:, 0], data.test.labels))
    return extras


def _write(study: "_Study", outcome: _Outcome, extras: dict[str, list[Tensor]], classes: Sequence[str]) -> None:
    work, settings, labels = study.work, study.settings, study.data.test.labels
    pixels = "snapshot" not in work.inputs
    right = {"pixel_accuracy" if pixels else "probe_accuracy": [scores.hits(best[:, 0], labels) for best in outcome.best]}
    if study.count == TOP and not pixels:
        right["probe_top5"] = [scores.hits(best, labels) for best in outcome.best]
    if outcome.on_test is not None:
        right["probe_accuracy_picked_on_test"] = [scores.hits(best[:, 0], labels) for best in outcome.best_on_test]
    right |= extras
    several = {name: [scores.percent(hit) for hit in seeds] for name, seeds in right.items()}
    means = {name: scores.mean_and_deviation(values) for name, values in several.items()}
    facts = {
        **{name: mean for name, (mean, _) in means.items()},
        "deviations": {name: deviation for name, (_, deviation) in means.items() if deviation is not None},
        "standard_errors": {name: scores.standard_error(seeds) for name, seeds in right.items()},
        "chosen": _named(outcome.chosen) | {"by": outcome.by},
        "picked_on_test": _named(outcome.on_test) if outcome.on_test else None,
        "cells": outcome.rows,
        "train_images": len(study.data.train) - outcome.validation_images,
        "validation_images": outcome.validation_images,
        "test_images": len(labels),
        "features": "cached" if settings.cached else "fresh",
    }
    matrices = [scores.confusion(best[:, 0], labels, study.data.classes) for best in outcome.best]
    counted = {"confusion": matrices[0].tolist(), "confusion_over_seeds": torch.stack(matrices).sum(0).tolist()}
    by_seed = {"by_seed": several, **counted, "classes": list(classes), "settings": settings.model_dump(mode="json")}
    work.write_json("probe.json", facts, by_seed)


def _named(cell: Cell) -> dict[str, Any]:
    return {"t": cell.t, "sigma": cell.sigma, "block": cell.block}


class _Study:
    """Trains heads on features of one network and one data set. It emits progress, and stores each finished head in the scratch space."""

    def __init__(self, work: Workspace, settings: ProbeSettings, data: Data, features: FeaturesOf, cells: list[Cell]) -> None:
        self.work, self.settings, self.data, self.features = work, settings, data, features
        self.everything, self.all_tests = (torch.arange(len(part), device=data.device) for part in (data.train, data.test))
        self.splits: tuple[tuple[Split, Tensor], ...] = (("train", self.everything), ("test", self.all_tests))
        self.count = TOP if data.classes >= TOP_CLASSES else 1
        self.source: Source = self.cached(cells, "features") if settings.cached else Fresh(features, cells, settings, data)
        self._saved = time.monotonic()

    def cached(self, cells: list[Cell], folder: str) -> Cached:
        progress = partial(self.work.progress, unit="looks at images")
        return Cached(self.features, cells, self.settings, self.data, self.work.out.parent / folder, progress)

    def trained(self, cells: list[Cell], index: Tensor, seed: int, purpose: str, source: Source | None = None) -> Iterable[Heads]:
        """Heads of all cells, trained on the images that `index` names in as many steps as all images would take."""
        source, settings = source or self.source, self.settings
        steps = -(-len(index) // settings.batch)
        everything = -(-len(self.everything) // settings.batch)
        epochs = settings.epochs if purpose[:3] != "few" else math.ceil(settings.epochs * everything / steps)
        for number, part in enumerate(source.parts(cells)):
            heads = Heads(source.widths, part, self.data.classes, settings, self.data.device, seed=seed, epochs=epochs)
            self._train(heads, source, index, steps, f"heads-{purpose}-{seed}-{number}.safetensors")
            yield heads

    def best(self, heads: Heads, held: Tensor | None = None, source: Source | None = None) -> dict[Cell, Tensor]:
        """The likeliest classes of the training images that `held` names, or of the test images if it is None."""
        source = source or self.source
        if held is None:
            return heads.best(source.look(heads.cells, "test", self.all_tests, heads.seed), self.count)
        return heads.best(source.look(heads.cells, "train", held, heads.seed), 1)

    def _train(self, heads: Heads, source: Source, index: Tensor, steps: int, name: str) -> None:
        """Train to the last epoch, saving the heads now and then so that a long probe can go on after a crash."""
        work, size = self.work, self.settings.batch
        saved = work.scratch.get(name, work.out.parent / "scratch")
        if saved is not None:
            heads.load_state(safetensors.torch.load_file(saved))
        begun, started, total, loss = heads.epochs * steps, time.monotonic(), heads.last * steps, math.nan

        def on_step(step: int) -> None:
            done = heads.epochs * steps + step
            rate = (done - begun) / (time.monotonic() - started)
            numbers = {"images_per_s": round(rate * min(size, len(index)), 1), "eta_s": round((total - done) / rate)}
            work.progress(done, total, unit="steps", loss=loss, **numbers)

        while heads.epochs < heads.last:
            batches = source.batches(heads.cells, index, heads.seed, heads.epochs, size)
            loss = min(heads.train_epoch(batches, on_step).values())
            if time.monotonic() - self._saved >= SAVE_EVERY_S:
                work.scratch.put(name, safetensors.torch.save(heads.state()))
                self._saved = time.monotonic()


def check(data: Prepared, settings: ProbeSettings, where: str) -> None:
    """Check that every class has images to learn, choose and test on. Raises InputError naming the classes that have none."""
    splits = (
        torch.bincount(torch.tensor(labels), minlength=len(data.classes)).tolist() for labels in (data.train_labels, data.test_labels)
    )
    enough_to_probe([ClassCount(*own) for own in zip(data.classes, *splits, strict=True)], settings.holds_out, where)


def _features(work: Workspace, settings: ProbeSettings, device: torch.device) -> tuple[FeaturesOf, list[Cell]]:
    if "snapshot" not in work.inputs:
        return lambda _: pixel_features, [PIXELS]
    denoiser = prepare_for_inference(snapshot.load(work.inputs["snapshot"].all(), settings.ema), device)
    return lambda cells: denoiser_features(denoiser, cells, settings.precision), cells_of(settings, denoiser.network.block_names)


if __name__ == "__main__":
    main("probe", run)
