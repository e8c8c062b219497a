"""Takes the features of the training images and stores them with their mean and covariance."""

from __future__ import annotations

from edm2core.data import load_prepared
from edm2core.devices import pick_device
from edm2core.metrics.extractors import WEIGHTS, extract, load_extractor
from edm2core.metrics.images import checked
from edm2core.metrics.statistics import ReferenceInfo, statistics, write_reference
from edm2core.stages.main import main
from edm2core.stages.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: reference.safetensors (mean, covariance), features.npy and reference.json; of all training images, unflipped."""
    if work.rank:
        return
    data, extractor = work.inputs["data"], work.inputs["extractor"]
    info, module = load_extractor(extractor.all())
    images = load_prepared(data.all()).train_images
    features = extract(module, checked([images], "training images"), pick_device(), lambda n: work.progress(n, len(images), unit="images"))
    made_of = ReferenceInfo(
        len(features), info.name, data.manifest.files["train_images.npy"].sha256, extractor.manifest.files[WEIGHTS].sha256
    )
    write_reference(work.out, statistics(features), made_of, features)
    work.metadata |= {"n": len(features), "extractor": info.name, "dimensions": info.dimensions, "images_sha256": made_of.images_sha256}


if __name__ == "__main__":
    main("reference", run)
