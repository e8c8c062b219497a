"""Every check of an experiment that can be made before anything runs, each once, with the line of the setting that it is about.

Settings check their own values (config/settings.py); stages check only what the data themselves show. Nothing here reads a file:
what headers and names say of the images comes as a `Survey`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from edm2core.config.settings import Recipe
from edm2core.data.folders import Survey
from edm2core.data.split import enough_to_probe
from edm2core.diffusion.layout import block_names
from edm2core.diffusion.posthoc import MOST_ERROR, mix_at
from edm2core.errors import InputError
from edm2core.metrics.names import FRECHET, Metric
from edm2core.registry import EXTRACTORS, METRICS


@dataclass(frozen=True)
class NamedMetric:
    """A metric as the experiment names it: `setting` is metrics or optional_metrics, `line` where the name stands."""

    metric: Metric
    text: str
    setting: str
    line: str
    by_default: bool = False  # whether the file does not say `setting` and so asks for FID


@dataclass(frozen=True)
class Request:
    """What an experiment asks of one recipe. `line` gives the file and line of a dotted setting."""

    recipe: Recipe
    line: Callable[[str], str]
    epochs: tuple[int, ...] = ()
    averages: tuple[tuple[str, str], ...] = ()  # each EMA that is used, and the section that asks for it
    named_metrics: tuple[NamedMetric, ...] = ()
    metrics: tuple[Metric, ...] = ()  # without those that are left out for want of weights
    probe: bool = False
    survey: Survey | None = None  # of the images on this disk; None behind a URL and for built-in data


def check_recipe(request: Request) -> None:
    """Check a recipe by itself. Raises InputError, as all checks do."""
    network_fits_data(request)
    batch_fits_data(request)


def check_request(request: Request) -> None:
    """Check what the experiment file asks of a recipe."""
    for check in (averages_suffice, blocks_exist, samples_suffice, reference_has_features, reference_is_used):
        check(request)


def check_data(request: Request) -> None:
    """Check what is asked against the images that the survey counted; data behind a URL are checked by the stages."""
    for check in (images_suffice, classes_fit, probe_has_images):
        check(request)


def network_fits_data(request: Request) -> None:
    """The network is for images of the data set's shape and classes."""
    network, data = request.recipe.network, request.recipe.data
    channels, side, _ = data.facts.shape or (data.channels, data.resolution, None)
    if data.facts.resized:
        side = data.resolution or side
    for setting, given, has in (
        ("image_channels", network.image_channels, channels),
        ("resolution", network.resolution, side),
        ("classes", network.classes or data.facts.classes, data.facts.classes),
    ):
        if has is not None and given != has:
            raise InputError(
                f"network.{setting} is {given}; {data.format} has {has}.",
                where=request.line(f"network.{setting}"),
                do_next=f"Set network.{setting} to {has}" + (", or to 0 for an unconditional network." if setting == "classes" else "."),
            )


def batch_fits_data(request: Request) -> None:
    """A batch has no more images than the data set has for training."""
    data, batch = request.recipe.data, request.recipe.training.batch
    count = data.facts.most_training_images(data.test_share)
    if count is not None and batch > count:
        raise InputError(
            f"training.batch is {batch:,}; {data.format} has {count:,} images for training.",
            where=request.line("training.batch"),
            do_next=f"Set training.batch to {count} or less.",
        )


def averages_suffice(request: Request) -> None:
    """Every EMA asked for will be in the snapshot, or can be mixed from those that training stores."""
    recipe = request.recipe
    first = (recipe.start.completed if recipe.start else None) or 0
    for (ema, section), epoch in product(request.averages, request.epochs):
        where = request.line(f"{section}.ema")
        if epoch == first and ema != "fixed":
            raise InputError(f"The checkpoint that {recipe.name} starts from has no EMA {ema}.", where=where, do_next="Ask for 'fixed'.")
        if not recipe.is_mixed(ema):
            continue
        stored = [e for e in recipe.training.stored_epochs(epoch) if e > first]
        error = mix_at(stored, recipe.training.ema_sigma_rel, epoch, float(ema)).error if recipe.training.ema_sigma_rel else 1.0
        if error > MOST_ERROR:
            raise InputError(
                f"An average of relative width {ema} at epoch {epoch} of {recipe.name} could only be mixed with an error of {error:.0%}, "
                f"from those stored at {len(stored)} epochs by then; more than {MOST_ERROR:.0%} says nothing.",
                where=where,
                do_next="Set training.average_every to fewer epochs (before training), or ask for a later epoch or another width.",
            )


def blocks_exist(request: Request) -> None:
    """Every block to probe is one of the network's decoder blocks."""
    recipe = request.recipe
    if not request.probe or recipe.probe.blocks == ("all",):
        return
    names = block_names(recipe.network)
    if unknown := [block for block in recipe.probe.blocks if block not in names]:
        raise InputError(
            f"The network of {recipe.name} has no decoder block {', '.join(unknown)}.",
            where=request.line("probe.blocks"),
            do_next=f"Choose among {names[0]} … {names[-1]} for probe.blocks, or say all.",
        )


def samples_suffice(request: Request) -> None:
    """Every metric has the samples that it needs, and as many images of a built-in data set to compare with."""
    recipe = request.recipe
    for named in request.named_metrics:
        if recipe.sample.count < named.metric.least_images:
            own = "fd" if recipe.data.facts.extractor else "fd_filters"
            raise InputError(
                f"{recipe.sample.count} samples are too few for '{named.text}', "
                f"which needs at least {named.metric.least_images}{_reason(named.metric)}.",
                where=request.line("sample.count"),
                do_next=f"Raise sample.count of {recipe.name}, or leave '{named.text}' out of `{named.setting}`."
                if not named.by_default
                else f"Raise sample.count of {recipe.name}, or say `metrics: [{own}]`; without it the experiment asks for FID.",
            )
        count = None if recipe.reference else recipe.data.facts.most_training_images(recipe.data.test_share)
        if count is not None and count < named.metric.least_images:
            raise InputError(
                f"{recipe.data.format} has {count} images for training, "
                f"and '{named.text}' needs at least {named.metric.least_images} to compare with.",
                where=named.line,
                do_next="Ask for metrics in features of fewer dimensions, such as the data set's own.",
            )


def reference_has_features(request: Request) -> None:
    """No metric needs the training images' own features where statistics are imported."""
    recipe = request.recipe
    for named in request.named_metrics:
        if recipe.reference and named.metric.extractor == recipe.reference.extractor and METRICS[named.metric.name].needs == "features":
            raise InputError(
                f"'{named.text}' needs the training images' own features, which imported statistics do not hold.",
                where=named.line,
                do_next=f"Leave it out here, and ask for it in an experiment without {recipe.name}'s `reference`: samples are shared.",
            )


def reference_is_used(request: Request) -> None:
    """Some distance is asked for in the features of the imported statistics."""
    recipe, metrics = request.recipe, [named.metric for named in request.named_metrics]
    if recipe.reference and metrics and not any(m.extractor == recipe.reference.extractor and m.name in FRECHET for m in metrics):
        words = EXTRACTORS[recipe.reference.extractor].words
        raise InputError(
            f"The imported reference of {recipe.name} is in {words}, in which no distance is asked for.",
            where=request.line("metrics"),
            do_next="Import statistics in the features that `metrics` name, or name such metrics.",
        )


def images_suffice(request: Request) -> None:
    """The data have the training images that every metric needs to compare with."""
    if request.survey is None:
        return
    recipe = request.recipe
    count = sum(own.train for own in request.survey.counts)
    imported = recipe.reference.extractor if recipe.reference else None
    for metric in request.metrics:
        if metric.extractor == imported or count >= metric.least_images:
            continue
        raise InputError(
            f"The data of {recipe.name} have {count} images for training, "
            f"and '{metric.result}' needs at least {metric.least_images}{_reason(metric)}.",
            where=_source_line(request),
            do_next="Add images, or ask for what needs fewer: kid 1000, fd_filters 55 (features for small sets, which need no weights), "
            "and precision, recall, density, coverage and memorisation 6 in any features, as precision_filters.",
        )


def classes_fit(request: Request) -> None:
    """A conditional network has as many classes as the data."""
    recipe, facts = request.recipe, request.recipe.data.facts
    if request.survey is None and not facts.builtin:
        return
    classes = len(request.survey.counts) if request.survey else facts.classes or 0
    if recipe.network.classes not in (0, classes):
        raise InputError(
            f"network.classes of {recipe.name} is {recipe.network.classes}; the data set has {classes} classes.",
            where=request.line("network.classes"),
            do_next=f"Set network.classes to {classes}, or to 0 for an unconditional network.",
        )


def probe_has_images(request: Request) -> None:
    """Every class has images to train a probe, to choose a cell and to test on."""
    recipe = request.recipe
    if request.probe and request.survey:
        enough_to_probe(request.survey.counts, recipe.probe.holds_out, _source_line(request))
    elif request.probe and recipe.data.facts.builtin and not recipe.data.test_share:
        enough_to_probe([], recipe.probe.holds_out, request.line("data.test_share"))


def _source_line(request: Request) -> str:
    return f"{request.line('data.source')} (data.source: {request.recipe.data.source})"


def _reason(metric: Metric) -> str:
    """Why a metric needs as many images as it does, to go on a sentence."""
    return f", since a covariance of {EXTRACTORS[metric.extractor].dimensions} features needs them" if metric.name in FRECHET else ""
