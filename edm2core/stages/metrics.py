"""Compares samples with reference statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edm2core.devices import pick_device
from edm2core.errors import IntegrityError
from edm2core.metrics.extractors import WEIGHTS, extract, load_extractor
from edm2core.metrics.statistics import read_reference
from edm2core.metrics.values import metric_values, result_name
from edm2core.stages.main import main
from edm2core.stages.sample import shard_names
from edm2core.stages.workspace import Input, Workspace


def run(work: Workspace) -> None:
    """Result: metrics.json; all metrics from one pass over the samples."""
    if work.rank:
        return
    samples, extractor = work.inputs["samples"], work.inputs["extractor"]
    info, module = load_extractor(extractor.all())
    reference, made_of = read_reference(work.inputs["reference"].all())
    if made_of.extractor_sha256 != extractor.manifest.files[WEIGHTS].sha256:
        raise IntegrityError(
            "The reference statistics are of another feature extractor.", where=work.task.title, do_next="Make them again."
        )
    names = work.settings["metrics"]
    for name in names:
        result_name(name, info.name)  # a wrong name shows before the long part
    count = samples.manifest.metadata["n"]
    features = extract(module, _shards(samples), pick_device(), lambda done: work.progress(done, count, unit="images"))
    values = metric_values(names, info.name, features, reference)
    facts = {"n": len(features), "n_reference": reference.n, "extractor": info.name, "layer": f"{info.library_name}/{info.layer}"}
    provenance = {"images_sha256": made_of.images_sha256, "extractor_sha256": made_of.extractor_sha256}
    (work.out / "metrics.json").write_text(json.dumps({"values": values, **facts, **provenance}, indent=1, allow_nan=False))
    work.metadata |= {"values": values, **facts}


def _shards(samples: Input) -> Iterator[NDArray[np.uint8]]:
    for name in shard_names(samples.manifest.files):
        yield np.load(samples.path(name), mmap_mode="r", allow_pickle=False)


if __name__ == "__main__":
    main("metrics", run)
