"""Measures images of any origin against a data set, with the metrics and protocols of experiments."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edm2.images import as_images, sample
from edm2core.data import Prepared, load_prepared
from edm2core.data.degenerate import checked
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.devices import pick_device
from edm2core.errors import InputError
from edm2core.metrics.compared import Compared, Value
from edm2core.metrics.extraction import BUILD, extract
from edm2core.metrics.extractors.inception import class_logits
from edm2core.metrics.names import IMAGES, Metric, metric
from edm2core.metrics.statistics import Reference, ReferenceInfo, statistics
from edm2core.metrics.values import metric_values
from edm2core.registry import EXTRACTORS, INCEPTIONS, METRICS, WEIGHT_FILES, WEIGHTS, load
from edm2core.stages.extractor import read_weights

AT_ONCE = 256  # images that a callable is asked for at a time


def evaluate(
    denoiser: Any,
    data: Any,
    metrics: Sequence[str] = ("fd_filters",),
    *,
    count: int | None = None,
    weights: Mapping[str, str | Path] | None = None,
    **sampling: Any,
) -> dict[str, Value]:
    """Each metric's value and standard error, by its name in results.

    `denoiser` is a Denoiser, any callable that makes `n` images from `n`, or images. Images are uint8, or floats in [0, 1], [N, C, H, W].
    `data` are what they are compared with: prepared data (`run.data()`), their folder, or images. `metrics` are named as in an experiment.
    `count` images are made, by default as many as there are training images and at most 50,000. `weights` name the files of extractors that
    need them: inception, dinov2. `sampling` are settings of `edm2.sample` for a Denoiser.
    Raises InputError for a metric that does not exist or lacks images or weights, and for images of a wrong shape, type or range.
    """
    prepared = _prepared(data)
    real = prepared.train_images
    named = [_named(text, prepared) for text in ([metrics] if isinstance(metrics, str) else metrics)]
    drawn = _drawn(denoiser, min(len(real), 50_000) if count is None else count, sampling)
    if drawn.shape[1:] != real.shape[1:]:
        shapes = f"The images are {list(drawn.shape[1:])} and the data {list(real.shape[1:])}: channels, height, width."
        raise InputError(shapes, where="edm2.evaluate", do_next="Bring both to one shape: resize them, or make them grey or coloured.")
    for each in named:
        if each.extractor == IMAGES:
            do_next = "Ask for it in an experiment, or call your function with `edm2.sample(…)` and the images yourself."
            raise InputError(f"'{each.name}' is your own metric, which experiments measure.", where="edm2.evaluate", do_next=do_next)
        if min(len(drawn), len(real)) < each.least_images:
            few = (
                f"'{each.result}' needs at least {each.least_images} images; there are {len(drawn)} to measure and {len(real)} of the data."
            )
            raise InputError(few, where="edm2.evaluate", do_next="Make more (count=), or ask for fd_filters (55) or precision_filters (6).")
    values: dict[str, Value] = {}
    for extractor in dict.fromkeys(each.extractor for each in named):
        values |= _in_features(extractor, [each for each in named if each.extractor == extractor], drawn, prepared, weights or {})
    return {each.result: values[each.result] for each in named}


def _in_features(
    extractor: str, metrics: list[Metric], drawn: NDArray[np.uint8], data: Prepared, weights: Mapping[str, str | Path]
) -> dict[str, Value]:
    """The values of metrics that are in one extractor's features."""
    module, device = _extractor(extractor, data, weights), pick_device()
    features = extract(module, checked([drawn], "images"), device)
    real = extract(module, checked([data.train_images], "training images"), device)
    gaussian = any(METRICS[each.name].needs == "statistics" for each in metrics)
    reference = Reference(statistics(real) if gaussian else None, ReferenceInfo(len(real), extractor, "", ""), real)
    logits = (lambda: class_logits(module, features)) if extractor in INCEPTIONS else None
    return metric_values(metrics, Compared(features, reference, device, logits))


def _extractor(name: str, data: Prepared, weights: Mapping[str, str | Path]) -> Any:
    facts = EXTRACTORS[name]
    if facts.fit:
        return load(facts.fit)(data, "the data")[0]
    file = WEIGHT_FILES[WEIGHTS[name]]
    path = weights.get(WEIGHTS[name])
    if path is None or not Path(path).is_file():
        given = f"There is no file {path}." if path else f"Metrics in {facts.words} need the weights of {file.words}."
        raise InputError(given, where=f"weights['{WEIGHTS[name]}']", do_next=f"{file.get} Here: weights={{'{WEIGHTS[name]}': path}}.")
    try:
        return BUILD[name](read_weights(Path(path), file.get)).eval().requires_grad_(False)
    except (RuntimeError, KeyError) as error:
        raise InputError(f"These are not the weights of {file.words}: {error}", where=str(path), do_next=file.get) from error


def _named(text: str, data: Prepared) -> Metric:
    try:
        return metric(text, str(data.info.get("format", "images")))
    except ValueError as error:
        raise InputError(str(error), where="metrics", do_next="docs/explanation/evaluation.md lists metrics and extractors.") from None


def _prepared(data: Any) -> Prepared:
    """The data set; images alone are training images of one class."""
    if isinstance(data, Prepared):
        return data
    if isinstance(data, str | Path):
        return load_prepared(Path(data))
    images = as_images(data, "data")
    labels = np.zeros(len(images), np.int64)
    return Prepared(images, labels, images[:0], labels[:0], ("all",), PixelScale(), {})


def _drawn(source: Any, count: int, sampling: dict[str, Any]) -> NDArray[np.uint8]:
    """The images to measure: a denoiser's samples, what a callable makes, or images as they are."""
    if count < 1:
        raise InputError(f"count is {count}.", where="edm2.evaluate", do_next="Give the number of images to make.")
    if isinstance(source, Denoiser):
        return sample(source, count, **sampling)
    if sampling:
        raise InputError(f"{', '.join(sampling)}: only a Denoiser takes them.", where="edm2.evaluate", do_next="Leave them out.")
    if not callable(source):
        return as_images(source, "images")
    return np.concatenate(list(_made(source, count)))


def _made(make: Callable[[int], Any], count: int) -> Iterator[NDArray[np.uint8]]:
    for begin in range(0, count, AT_ONCE):
        asked = min(AT_ONCE, count - begin)
        images = as_images(make(asked), "what the callable returned")
        if len(images) != asked:
            what = f"The callable was asked for {asked} images and returned {len(images)}."
            raise InputError(what, where="edm2.evaluate", do_next="Let it return as many images as its argument says.")
        yield images
