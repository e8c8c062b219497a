"""Compares an extractor's features and our reference with others' statistics, the test images, or images of a known distance."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edm2core.config.settings import CalibrationSettings
from edm2core.data import load_prepared
from edm2core.data.degenerate import checked
from edm2core.data.loose import loose_images
from edm2core.diffusion.devices import pick_device
from edm2core.metrics.extraction import extract, load_extractor
from edm2core.metrics.gaussian import Statistics, read_npz
from edm2core.metrics.names import Metric
from edm2core.metrics.statistics import frechet_distance, frechet_error, statistics
from edm2core.registry import INCEPTIONS
from edm2core.stages.reference import reference_of
from edm2core.stages.sample import shards_of
from edm2core.worker.fetching import brought
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace

ORDER = 0  # seed of the order that cuts the images into the error's blocks: random, since the blocks have to be alike


def run(work: Workspace) -> None:
    """Result: calibration.json. The manifest holds the same."""
    settings = CalibrationSettings.among(work.settings)
    info, module = load_extractor(work.inputs["extractor"].all())
    ours = reference_of(work).statistics
    facts: dict[str, Any] = {"extractor": info.name, "label": Metric("fid" if info.name in INCEPTIONS else "fd", info.name).label}
    if settings.against == "statistics":
        facts |= differences(ours, read_npz(brought(work), ours.n, info.dimensions))
    else:
        called = "test images" if settings.against == "test" else settings.name
        count = work.inputs["samples"].manifest.metadata["n"] if "samples" in work.inputs else 1
        shards = checked(_images(work), called)
        features = extract(module, shards, pick_device(), lambda done: work.progress(done, max(done, count), unit="images"))
        order = np.random.RandomState(ORDER).permutation(len(features))  # a folder's images come class by class
        facts |= {
            "n": len(features),
            "distance": frechet_distance(statistics(features), ours),
            "error": frechet_error(features[order], ours),
        }
    work.write_json("calibration.json", facts)


def differences(ours: Statistics, theirs: Statistics) -> dict[str, float]:
    """How two statistics of the same images differ: mean and covariance relative to ours, and the distance between both."""
    return {
        "mean_difference": float(np.linalg.norm(ours.mean - theirs.mean) / np.linalg.norm(ours.mean)),
        "covariance_difference": float(np.linalg.norm(ours.covariance - theirs.covariance) / np.linalg.norm(ours.covariance)),
        "distance": frechet_distance(ours, theirs),
        "n": ours.n,
    }


def _images(work: Workspace) -> Iterator[NDArray[np.uint8]]:
    if samples := work.inputs.get("samples"):
        yield from shards_of(samples)
    elif work.settings["against"] == "test":
        yield load_prepared(work.inputs["data"].all()).test_images
    else:
        channels, height, width = work.inputs["data"].manifest.metadata["shape"]
        yield from loose_images(brought(work), (channels, height, width))[1]


if __name__ == "__main__":
    main("calibration", run)
