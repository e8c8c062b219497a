"""Compares samples with the training images in one extractor's features: one pass over the samples gives all metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.data.varied import checked
from edm2core.diffusion.devices import compute, pick_device
from edm2core.errors import IntegrityError
from edm2core.metrics.compared import Compared
from edm2core.metrics.extractors import WEIGHTS, extract, load_extractor
from edm2core.metrics.inception import class_logits
from edm2core.metrics.names import FRECHET, IMPORTED, Metric, split
from edm2core.metrics.neighbours import Memorised
from edm2core.metrics.statistics import ARRAYS, FEATURES, INFO, Reference, read_reference
from edm2core.metrics.values import metric_values
from edm2core.registry import INCEPTIONS, METRICS
from edm2core.stages.sample import shard_names, write_grid
from edm2core.worker.main import main
from edm2core.worker.workspace import Input, Workspace

NEIGHBOURS, PAIRS_A_ROW = "neighbours.png", 8


def run(work: Workspace) -> None:
    """Result: metrics.json; with memorisation also neighbours.png: rows of samples, and beneath each its nearest training image."""
    compute(tf32=False)  # features are compared with others' of the same network
    samples, extractor = work.inputs["samples"], work.inputs["extractor"]
    info, module = load_extractor(extractor.all())
    metrics = [Metric(name, info.name) for name in work.settings["metrics"]]
    reference = _reference(work.inputs["reference"], any(METRICS[metric.name].needs == "features" for metric in metrics))
    if reference.info.extractor_sha256 != extractor.manifest.files[WEIGHTS].sha256:
        raise IntegrityError(
            "The reference statistics are of another feature extractor.", where=work.task.title, do_next="Make them again."
        )
    count, device = samples.manifest.metadata["n"], pick_device()
    shards = checked(_shards(samples), "samples")
    features = extract(module, shards, device, lambda done: work.progress(done, count, unit="images"))
    logits = (lambda: class_logits(module, features)) if info.name in INCEPTIONS else None
    compared = Compared(features, reference, device, logits)
    found = metric_values(metrics, compared)
    if reference.info.origin:
        found = {f"{name}{IMPORTED}" if split(name)[0] in FRECHET else name: value for name, value in found.items()}
    values = {name: value.value for name, value in found.items()}
    errors = {name: value.error for name, value in found.items() if value.error is not None}
    facts = {
        "n": len(features),
        "n_reference": reference.statistics.n,
        "extractor": info.name,
        "layer": f"{info.library_name}/{info.layer}",
    }
    provenance = {"images_sha256": reference.info.images_sha256, "extractor_sha256": reference.info.extractor_sha256}
    if reference.info.origin:
        facts["reference_origin"] = reference.info.origin
    if compared.memorised:
        facts |= {"neighbours": compared.memorised._asdict()}
        _show(work.out / NEIGHBOURS, compared.memorised, samples, work.inputs["data"])
    written = {"values": values, "standard_errors": errors, **facts}
    (work.out / "metrics.json").write_text(json.dumps({**written, **provenance}, indent=1, allow_nan=False), encoding="utf-8")
    work.metadata |= written


def _reference(made: Input, with_features: bool) -> Reference:
    """Only what is needed is fetched: the features are large."""
    for name in (INFO, ARRAYS, *([FEATURES] if with_features else [])):
        folder = made.path(name).parent
    return read_reference(folder, with_features=with_features)


def _shards(samples: Input) -> Iterator[NDArray[np.uint8]]:
    for name in shard_names(samples.manifest.files):
        yield np.load(samples.path(name), mmap_mode="r", allow_pickle=False)


def _show(path: Path, found: Memorised, samples: Input, data: Input) -> None:
    """Draw the pairs, the most suspicious first."""
    training = np.load(data.path("train_images.npy"), mmap_mode="r", allow_pickle=False)
    shards = list(_shards(samples))
    begins = np.cumsum([0, *map(len, shards)])
    places = [(int(np.searchsorted(begins, i, side="right")) - 1, i) for i in found.samples]
    drawn = np.stack([shards[shard][i - begins[shard]] for shard, i in places])
    rows: list[NDArray[np.uint8]] = []
    for begin in range(0, len(drawn), PAIRS_A_ROW):
        for images in (drawn[begin : begin + PAIRS_A_ROW], training[found.training[begin : begin + PAIRS_A_ROW]]):
            rows.append(np.concatenate([images, np.zeros((PAIRS_A_ROW - len(images), *images.shape[1:]), np.uint8)]))
    write_grid(path, np.concatenate(rows))


if __name__ == "__main__":
    main("metrics", run)
