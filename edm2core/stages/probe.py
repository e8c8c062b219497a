"""Trains linear probes on a snapshot's features, or on raw pixels where there is no snapshot."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from edm2core import snapshot
from edm2core.config.settings import ProbeSettings
from edm2core.data import load_prepared
from edm2core.devices import pick_device
from edm2core.errors import InputError
from edm2core.inference import prepare
from edm2core.probe import (
    PIXELS,
    Cell,
    Features,
    Labelled,
    Probe,
    accuracy,
    cells_of,
    choose,
    confusion,
    denoiser_features,
    pixel_features,
    stratified_split,
)
from edm2core.stages.main import main
from edm2core.stages.workspace import Workspace

HEADS = "heads.safetensors"
SAVE_EVERY_S = 20.0


def run(work: Workspace) -> None:
    """Result: probe.json, accuracies in percent.

    One cell: the published protocol, trained on all training images, as nothing is selected (validation_share is not used).
    A grid: each cell is trained without the validation images, the cell is chosen on them, and the test accuracy is the chosen cell's.
    """
    if work.rank:
        return
    settings, device = ProbeSettings.model_validate(work.settings), pick_device()
    data = load_prepared(work.inputs["data"].all())
    test = _labelled(data.test_images, data.test_labels, device)
    if not len(test):
        raise InputError("The probe needs test images, and the data set has none.", where=work.inputs["data"].manifest.title, do_next=_TEST)
    train = _labelled(data.train_images, data.train_labels, device)
    features, cells = _features(work, settings, device)
    validation = None
    if len(cells) > 1:
        kept, held = stratified_split(train.labels, settings.validation_share, settings.seed)
        train, validation = train[kept], train[held]
    affine = data.affine
    probe = Probe(features, affine, settings, train, len(data.classes))
    _train(work, probe)
    on_validation = _accuracies(work, probe, validation, "validation") if validation else None
    predictions = probe.predict(test.images, "test", lambda done: work.progress(done, len(test), unit="test images"))
    on_test = {cell: accuracy(predictions[cell], test.labels) for cell in cells}
    chosen = choose(on_validation) if on_validation else cells[0]
    counts = {"train_images": len(train), "validation_images": len(validation) if validation else 0, "test_images": len(test)}
    facts = {"classes": list(data.classes), **counts, **settings.model_dump(mode="json", exclude={"t", "blocks"})}
    result = _result(cells, on_validation, on_test, chosen)
    matrix = confusion(predictions[chosen], test.labels, len(data.classes)).tolist()
    (work.out / "probe.json").write_text(json.dumps({**result, "confusion": matrix, **facts}, indent=1, allow_nan=False))
    name = "probe_accuracy" if "snapshot" in work.inputs else "pixel_accuracy"
    work.metadata |= {name: on_test[chosen], "chosen": result["chosen"], "cells": result["cells"], **counts}


_TEST = "Give data with a test folder, or set data.test_share above 0."


def _features(work: Workspace, settings: ProbeSettings, device: torch.device) -> tuple[Features, list[Cell]]:
    if "snapshot" not in work.inputs:
        return pixel_features, [PIXELS]
    denoiser = prepare(snapshot.load(work.inputs["snapshot"].all(), settings.ema), device)
    cells = cells_of(settings, denoiser.block_names)
    return denoiser_features(denoiser, cells, settings.precision), cells


def _labelled(images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> Labelled:
    return Labelled(torch.tensor(images).to(device), torch.tensor(labels).to(device))


def _train(work: Workspace, probe: Probe) -> None:
    """Train to the last epoch, keeping the heads now and then so that a long probe can go on after a crash."""
    kept = work.scratch.get(HEADS, work.out.parent / "scratch")
    if kept is not None:
        probe.load_state(safetensors.torch.load_file(kept))
    begun, started = probe.epochs * probe.steps_per_epoch, time.monotonic()
    total = probe.settings.epochs * probe.steps_per_epoch
    saved = started
    loss = math.nan

    def on_step(step: int) -> None:
        done = probe.epochs * probe.steps_per_epoch + step
        rate = (done - begun) / (time.monotonic() - started)
        work.progress(
            done, total, unit="steps", loss=loss, images_per_s=round(rate * probe.settings.batch, 1), eta_s=round((total - done) / rate)
        )

    while probe.epochs < probe.settings.epochs:
        loss = min(probe.train_epoch(on_step).values())
        if time.monotonic() - saved >= SAVE_EVERY_S:
            work.scratch.put(HEADS, safetensors.torch.save(probe.state()))
            saved = time.monotonic()


def _accuracies(work: Workspace, probe: Probe, held: Labelled, purpose: str) -> dict[Cell, float]:
    found = probe.predict(held.images, purpose, lambda done: work.progress(done, len(held), unit=f"{purpose} images"))
    return {cell: accuracy(predictions, held.labels) for cell, predictions in found.items()}


def _result(cells: list[Cell], on_validation: dict[Cell, float] | None, on_test: dict[Cell, float], chosen: Cell) -> dict[str, Any]:
    """Every cell's accuracies; only the chosen cell's on the test images counts, the others' are for looking at."""
    rows = [
        {
            "t": cell.t,
            "sigma": cell.sigma,
            "block": cell.block,
            "validation_accuracy": on_validation[cell] if on_validation else None,
            "test_accuracy": on_test[cell],
            "chosen": cell == chosen,
        }
        for cell in cells
    ]
    place = {"t": chosen.t, "sigma": chosen.sigma, "block": chosen.block, "by": "validation accuracy" if on_validation else "settings"}
    return {"cells": rows, "chosen": place, "test_accuracy": on_test[chosen]}


if __name__ == "__main__":
    main("probe", run)
