"""Makes a feature extractor: the digits classifier is trained, filters are scaled to the data, others' weights are fetched and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from edm2core.data import digest_of, load_prepared
from edm2core.errors import InputError
from edm2core.events import emit
from edm2core.metrics.digits import CLASSES, SIDE, accuracy, train_digits
from edm2core.metrics.extractors import DIGITS, DINOV2, FILTERS, INCEPTION, PYTORCH_FID, Extractor, build_dinov2, build_inception
from edm2core.metrics.filters import fit_filters
from edm2core.metrics.names import IN_WORDS, WEIGHTS
from edm2core.snapshots.torch_file import load_torch
from edm2core.worker.main import main
from edm2core.worker.sources import GET_WEIGHTS, PUBLISHED, weights_file
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: extractor.safetensors and extractor.json."""
    if work.rank:
        return
    makers = {"digits": _digits, "inception": _inception, "pytorch_fid": _inception, "dinov2": _dinov2, "filters": _filters}
    make = makers.get(work.settings["extractor"])
    if make is None:
        raise InputError(
            f"There is no feature extractor {work.settings['extractor']!r}.", where="extractor", do_next=f"Use one of {', '.join(makers)}."
        )
    make(work)


def _digits(work: Workspace) -> None:
    data = load_prepared(work.inputs["data"].all())
    shape = data.train_images.shape[1:]
    if shape != (1, SIDE, SIDE) or len(data.classes) != CLASSES:
        raise InputError(
            f"The digits features are for {CLASSES} classes of 1x{SIDE}x{SIDE} images, not {len(data.classes)} of {shape}.",
            where=work.inputs["data"].manifest.title,
            do_next="Ask for metrics in other features, such as `fid`.",
        )
    work.progress(0, 1)
    module = train_digits(data.train_images, data.train_labels)
    DIGITS.write(work.out, module.state_dict())
    work.metadata |= {
        "extractor": DIGITS.name,
        "label": "digits features",
        "dimensions": DIGITS.dimensions,
        "test_accuracy": round(accuracy(module, data.test_images, data.test_labels), 2) if len(data.test_images) else None,
    }


def _filters(work: Workspace) -> None:
    images = load_prepared(work.inputs["data"].all()).train_images
    FILTERS.write(work.out, fit_filters(images).state_dict())
    work.metadata |= {"extractor": FILTERS.name, "label": IN_WORDS[FILTERS.name], "dimensions": FILTERS.dimensions}


def _inception(work: Workspace) -> None:
    info = PYTORCH_FID if work.settings["extractor"] == PYTORCH_FID.name else INCEPTION
    path = weights_file(work)
    digest = digest_of(path)
    published = digest.startswith(PUBLISHED)
    if not published:
        emit(
            "warning", message=f"{path} is not the published file ({PUBLISHED}…): distances are not comparable with FIDs in the literature."
        )
    _brought(work, info, path, lambda weights: build_inception(weights, info))
    work.metadata |= {"source_digest": digest, "published_weights": published}


def _dinov2(work: Workspace) -> None:
    path = weights_file(work)
    _brought(work, DINOV2, path, build_dinov2)
    work.metadata["source_digest"] = digest_of(path)


def _brought(work: Workspace, info: Extractor, path: Path, build: Callable[[dict[str, Tensor]], object]) -> None:
    """An extractor of the user's weights, if `build` takes them."""
    do_next = GET_WEIGHTS[WEIGHTS[info.name]]
    weights = read_weights(path, do_next)
    try:
        build(weights)
    except (RuntimeError, KeyError) as error:
        raise InputError(f"These are not the weights of {info.library_name}: {error}", where=str(path), do_next=do_next) from error
    info.write(work.out, weights)
    work.metadata |= {"extractor": info.name, "label": info.library_name, "dimensions": info.dimensions}


def read_weights(path: Path, do_next: str) -> dict[str, Tensor]:
    """The tensors in a .pth file, by name; raises InputError as `load_torch`, and if it is not a dictionary of tensors."""
    try:
        weights = load_torch(path)
    except InputError as error:
        raise InputError(error.what, where=error.where, do_next=f"{error.do_next} {do_next}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError("This file does not hold weights by name.", where=str(path), do_next=do_next)
    return weights


if __name__ == "__main__":
    main("extractor", run)
