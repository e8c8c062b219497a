"""Stores the features of the training images with their mean and covariance, or imports statistics that others took."""

from edm2core.config.settings import ReferenceSettings
from edm2core.data import load_prepared
from edm2core.data.degenerate import checked
from edm2core.diffusion.devices import compute, pick_device
from edm2core.events import emit
from edm2core.metrics.extraction import WEIGHTS, ExtractorInfo, extract, load_extractor
from edm2core.metrics.gaussian import read_npz
from edm2core.metrics.statistics import (
    ARRAYS,
    FEATURES,
    INFO,
    Reference,
    ReferenceInfo,
    read_reference,
    statistics,
    too_few,
    write_reference,
)
from edm2core.plan.checks import check_reference_count
from edm2core.worker.fetching import brought
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: reference.safetensors (mean, covariance), reference.json; features.npy unless imported. All training images, unflipped.

    Where the images are too few for a covariance, reference.safetensors is left out: metrics that compare image by image need none.
    """
    compute(tf32=False)  # features are compared with others' of the same network
    info, module = load_extractor(work.inputs["extractor"].all())
    if "origin" in work.settings:
        _import(work, info)
        return
    data = work.inputs["data"]
    images = load_prepared(data.all()).train_images
    features = extract(module, checked([images], "training images"), pick_device(), lambda n: work.progress(n, len(images), unit="images"))
    made_of = ReferenceInfo(len(features), info.name, data.manifest.files["train_images.npy"].sha256, _weights(work))
    enough = len(features) > info.dimensions
    if not enough:
        emit("warning", message=f"no Fréchet distance can be had: {too_few(len(features), info.dimensions).what}")
    write_reference(work.out, statistics(features) if enough else None, made_of, features)
    work.metadata |= {"n": len(features), "extractor": info.name, "dimensions": info.dimensions, "images_sha256": made_of.images_sha256}


def _import(work: Workspace, info: ExtractorInfo) -> None:
    """Store others' statistics, if they are of as many images as the data have. Planning has checked their size and features."""
    asked = ReferenceSettings.among(work.settings)
    data = work.inputs["data"].manifest
    check_reference_count(asked.count, data.metadata["counts"]["train"], data.title)
    theirs = read_npz(brought(work), asked.count, info.dimensions)
    write_reference(work.out, theirs, ReferenceInfo(theirs.n, info.name, "", _weights(work), asked.origin), None)
    emit("warning", message=f"distances are from imported statistics, not from our own of the training images: {asked.origin}")
    work.metadata |= {"n": theirs.n, "extractor": info.name, "dimensions": info.dimensions, "origin": asked.origin}


def reference_of(work: Workspace, *, with_features: bool = False) -> Reference:
    """The reference among a task's inputs. The features are large, so they are fetched only if they are needed."""
    stored = work.inputs["reference"]
    for name in (INFO, *([ARRAYS] if ARRAYS in stored.manifest.files else []), *([FEATURES] if with_features else [])):
        folder = stored.path(name).parent
    return read_reference(folder, with_features=with_features)


def _weights(work: Workspace) -> str:
    return work.inputs["extractor"].manifest.files[WEIGHTS].sha256


if __name__ == "__main__":
    main("reference", run)
