"""Compares samples with the training images in one extractor's features. One pass over the samples gives all metrics."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edm2core.data.degenerate import checked
from edm2core.data.prepared import load_prepared
from edm2core.diffusion.devices import compute, pick_device
from edm2core.diffusion.latents import drawn_labels
from edm2core.errors import IntegrityError
from edm2core.metrics.compared import Compared
from edm2core.metrics.extraction import WEIGHTS, extract, load_extractor
from edm2core.metrics.extractors.inception import class_logits
from edm2core.metrics.names import FRECHET, IMPORTED, Metric, own_metrics, split
from edm2core.metrics.neighbours import Memorised
from edm2core.metrics.own import own_value
from edm2core.metrics.values import metric_values
from edm2core.registry import INCEPTIONS, METRICS
from edm2core.stages.reference import reference_of
from edm2core.stages.sample import shards_of, write_grid
from edm2core.worker.main import main
from edm2core.worker.workspace import Input, Workspace

NEIGHBOURS, PAIRS_A_ROW = "neighbours.png", 8


def run(work: Workspace) -> None:
    """Result: metrics.json. With memorisation also neighbours.png: rows of samples, each above its nearest training image."""
    compute(tf32=False)  # features are compared with others' of the same network
    if "extractor" not in work.inputs:
        _compare_images(work)
        return
    samples, extractor = work.inputs["samples"], work.inputs["extractor"]
    info, module = load_extractor(extractor.all())
    metrics = [Metric(name, info.name) for name in work.settings["metrics"]]
    reference = reference_of(work, with_features=any(METRICS[metric.name].needs == "features" for metric in metrics))
    if reference.info.extractor_sha256 != extractor.manifest.files[WEIGHTS].sha256:
        other = "The reference statistics are of another feature extractor."
        raise IntegrityError(other, where=work.task.title, do_next="Make them again.")
    count, device = samples.manifest.metadata["n"], pick_device()
    shards = checked(shards_of(samples), "samples")
    features = extract(module, shards, device, lambda done: work.progress(done, count, unit="images"))
    logits = (lambda: class_logits(module, features)) if info.name in INCEPTIONS else None
    compared = Compared(features, reference, device, logits, lambda: _classes(samples, work.inputs["data"]))
    measured = metric_values(metrics, compared)
    if reference.info.origin:
        measured = {f"{name}{IMPORTED}" if split(name)[0] in FRECHET else name: value for name, value in measured.items()}
    facts: dict[str, Any] = {
        "values": {name: value.value for name, value in measured.items()},
        "standard_errors": {name: value.error for name, value in measured.items() if value.error is not None},
        "left_out": {name: value.left_out for name, value in measured.items() if value.left_out},
        "n": len(features),
        "n_reference": reference.info.n,
        "extractor": info.name,
        "layer": f"{info.library_name}/{info.layer}",
    }
    if reference.info.origin:
        facts["reference_origin"] = reference.info.origin
    if intervals := {name: value.interval for name, value in measured.items() if value.interval}:
        facts["intervals"] = intervals
    if compared.by_class:
        facts["by_class"] = compared.by_class
    if compared.memorised:
        facts["neighbours"] = compared.memorised._asdict()
        _show(work.out / NEIGHBOURS, compared.memorised, samples, work.inputs["data"])
    made_of = {"images_sha256": reference.info.images_sha256, "extractor_sha256": reference.info.extractor_sha256}
    work.write_json("metrics.json", facts, made_of)


def _classes(samples: Input, data: Input) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes of class-conditional samples, which follow from how they were drawn, and those of the training images."""
    drawn, prepared = samples.manifest.metadata, load_prepared(data.all())
    labels = drawn_labels(drawn["seed"], drawn["draw"], range(drawn["n"]), len(prepared.classes))
    return labels.numpy(), prepared.train_labels


def _compare_images(work: Workspace) -> None:
    """Result: metrics.json, of the user's own metrics, which compare images themselves."""
    samples = np.concatenate(list(checked(shards_of(work.inputs["samples"]), "samples")))
    real = load_prepared(work.inputs["data"].all()).train_images
    measured = {each.result: own_value(each.name, samples, real, **dict(each.options)) for each in own_metrics(work.settings)}
    facts: dict[str, Any] = {
        "values": {name: value.value for name, value in measured.items()},
        "standard_errors": {name: value.error for name, value in measured.items() if value.error is not None},
        "n": len(samples),
        "n_reference": len(real),
    }
    work.write_json("metrics.json", facts)


def _show(path: Path, pairs: Memorised, samples: Input, data: Input) -> None:
    """Draw the samples that are most like training images, each above the nearest one."""
    training = np.load(data.path("train_images.npy"), mmap_mode="r", allow_pickle=False)
    drawn = list(chain.from_iterable(shards_of(samples)))
    both = np.stack([np.stack([drawn[i] for i in pairs.samples]), training[pairs.training]])
    full = np.pad(both, ((0, 0), (0, -len(pairs.samples) % PAIRS_A_ROW), (0, 0), (0, 0), (0, 0)))
    rows = full.reshape(2, -1, PAIRS_A_ROW, *full.shape[2:]).swapaxes(0, 1)  # of samples and of training images in turn
    write_grid(path, rows.reshape(-1, *full.shape[2:]))


if __name__ == "__main__":
    main("metrics", run)
