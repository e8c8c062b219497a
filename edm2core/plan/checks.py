"""Every check of an experiment that can be made before anything runs. Each names the line of the setting that is wrong.

Settings check their own values (config/settings.py), and stages check only what the data themselves show. All checks raise InputError.
Nothing here reads a file: what headers and names say of the images comes as a `Survey`.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from edm2core.config.describe import fields_of, in_words
from edm2core.config.fields import OWN, is_keyed
from edm2core.config.settings import GuideSettings, NetworkSettings, OwnNetworkSettings, ProbeSettings, Recipe
from edm2core.config.validate import unknown
from edm2core.config.yaml_file import Document
from edm2core.data.formats.folders import Survey
from edm2core.data.split import enough_to_probe
from edm2core.diffusion.layout import block_widths
from edm2core.diffusion.posthoc import MOST_ERROR, mix_at
from edm2core.errors import InputError
from edm2core.metrics.names import FRECHET, Metric, metric, split
from edm2core.plan.keys import keyed
from edm2core.plan.subject import TRAINED, Swept, guide_settings, named_by, resolved, same_training
from edm2core.registry import EXTRACTORS, METRICS, is_own, meant_address

GUIDE = "sample.guidance.guide"
SWEEPABLE = tuple(f"{section}." for section in (*TRAINED, "sample", "probe"))  # how the settings begin that a sweep may name
AVERAGES = ("sample.ema", "sample.draws")  # a recipe takes several of these without a sweep
SURE = 5  # standard deviations below its mean number of samples at which a class still has enough
MOST_SNAPSHOTS = 10_000  # of a training whose experiment does not name its epochs
FEWER = (
    "Add images, or ask for what needs fewer: kid 1000, fd_filters 55 (features for small sets, which need no weights), "
    "and precision, recall, density, coverage and memorisation 6 in any features, as precision_filters."
)


@dataclass(frozen=True)
class NamedMetric:
    """A metric as the experiment names it: `setting` is metrics or optional_metrics, and `line` is the name's."""

    metric: Metric
    text: str
    setting: str
    line: str
    by_default: bool = False  # whether the file leaves `setting` out and so asks for FID


@dataclass(frozen=True)
class Request:
    """What an experiment asks of one recipe. `line` gives the file and line of a dotted setting."""

    recipe: Recipe
    line: Callable[[str], str]
    epochs: tuple[int, ...] = ()  # in the order of the file
    epochs_by_default: bool = False  # whether the file names none, so that they follow from the recipe
    averages: tuple[tuple[str, str], ...] = ()  # each EMA that is used, and the section that asks for it
    named_metrics: tuple[NamedMetric, ...] = ()
    metrics: tuple[Metric, ...] = ()  # those whose extractor has its weights
    probe: bool = False
    survey: Survey | None = None  # of the images on this disk; None behind a URL and for built-in data

    def wrong(self, setting: str, what: str, do_next: str) -> InputError:
        return InputError(what, where=self.line(setting), do_next=do_next)

    @property
    def trained(self) -> int | None:
        """How many images for training the survey counted; None without a survey."""
        return sum(own.train for own in self.survey.counts) if self.survey else None


def check_recipe(request: Request) -> None:
    """Check a recipe by itself."""
    for check in (network_fits_data, batch_fits_data, decay_has_effect, checkpoint_has_moments):
        check(request)


def check_request(request: Request) -> None:
    """Check what the experiment file asks of a recipe."""
    for check in (
        epochs_exist,
        averages_suffice,
        blocks_exist,
        samples_suffice,
        classes_suffice,
        reference_has_features,
        reference_is_used,
    ):
        check(request)


def check_guide(request: Request, recipes: Sequence[Recipe], swept: Mapping[str, Swept], seeds: Sequence[int]) -> None:
    """Check that the experiment keeps the guide of a recipe's samples, and that its images are of the same kind."""
    recipe, guide = request.recipe, guide_settings(request.recipe.sample)
    if guide is None:
        return
    other = _guiding(request, guide, recipes, swept)
    _guide_fits(request, other)
    if guide.seed is not None and guide.seed not in seeds:
        what = f"The guide's seed {guide.seed} is none of the experiment's, which are {', '.join(map(str, seeds))}."
        raise request.wrong(f"{GUIDE}.seed", what, f"Add {guide.seed} to `seeds:`, or guide by a training of one of these.")
    for epoch, ema, seed in product(request.epochs, recipe.sample.ema, seeds):
        found = resolved(guide, other, seed, epoch, ema)
        if not (other.starts_after or 1) <= found.epoch <= other.training.epochs:
            what = f"The guide's epoch {found.epoch} is none of {other.name}'s training, which has {other.training.epochs} epochs."
            raise request.wrong(f"{GUIDE}.epoch", what, f"Name an epoch from {other.starts_after or 1} to {other.training.epochs}.")
        if found.ema == "fixed" and other.training.ema_beta is None:
            what = f"{other.name} has no fixed EMA, since its training.ema_beta is null."
            raise request.wrong(f"{GUIDE}.ema", what, "Name a width for the guide, such as ema: 0.1.")
        if same_training(other, recipe) and (found.seed, found.epoch, found.ema) == (seed, epoch, ema):
            what = f"At epoch {epoch} {recipe.name}, EMA {ema}, would be guided by itself, which changes nothing."
            raise request.wrong(GUIDE, what, "Name another epoch, average, recipe or seed, or look at other `epochs:`.")
        averages_suffice(Request(other, request.line, (found.epoch,), averages=((found.ema, GUIDE),)))


def _guiding(request: Request, guide: GuideSettings, recipes: Sequence[Recipe], swept: Mapping[str, Swept]) -> Recipe:
    """The recipe whose training the guide is of."""
    named = named_by(guide, request.recipe, recipes, swept)
    if len(named) > 1:
        what = f"'{guide.recipe}' is several trainings: {', '.join(each.name for each in named)}."
        raise request.wrong(f"{GUIDE}.recipe", what, "Name one of them.")
    if not named:
        names = list(dict.fromkeys([*(swept[each.name].of if each.name in swept else each.name for each in recipes)]))
        what = unknown("recipe in the experiment", str(guide.recipe), str(guide.recipe), names)
        raise request.wrong(f"{GUIDE}.recipe", what, "A guide is trained here, so it stands among `recipes:`.")
    return named[0]


def _guide_fits(request: Request, other: Recipe) -> None:
    """The guide denoises images of the same data and the same shape, for the same classes or for none."""
    recipe = request.recipe
    if keyed(other.data) != keyed(recipe.data) or other.data.source != recipe.data.source:
        what = f"{other.name} is trained on another data set than {recipe.name}, or on other settings of it."
        raise request.wrong(f"{GUIDE}.recipe", what, "Name a recipe with the same `data:`.")
    for setting in ("resolution", "image_channels", "classes"):
        own, its = getattr(recipe.network, setting), getattr(other.network, setting)
        if its != own and not (setting == "classes" and its == 0):
            what = f"network.{setting} of the guide {other.name} is {its}; that of {recipe.name} is {own}."
            or_none = ", or none at all" if setting == "classes" else ""
            raise request.wrong(f"{GUIDE}.recipe", what, f"Name a recipe whose network.{setting} is {own}{or_none}.")


def check_data(request: Request) -> None:
    """Check what is asked against the images that the survey counted. Stages check data behind a URL."""
    for check in (images_suffice, each_class_suffices, classes_fit, reference_is_of_data, probe_has_images):
        check(request)


def check_sweep(document: Document, sweep: Mapping[str, Sequence[Any]], fixed: Mapping[str, str], own: Collection[str] = ()) -> None:
    """Check each setting of an experiment's sweep.

    `fixed` are the settings that have one value already, with the section that says so. `own` are those of own code.
    """
    fields = {name: field for name, field in fields_of(Recipe).items() if name.startswith(SWEEPABLE) and not name.endswith(f".{OWN}")}
    known = [setting for setting, field in fields.items() if is_keyed(field) and setting not in AVERAGES]
    known += sorted(setting for setting in own if setting.startswith(SWEEPABLE))
    for setting, values in sweep.items():
        where = str(document.origin(("sweep", setting)))
        name = setting.partition(".")[2]
        if setting not in known:
            none = f"'{setting}' cannot be swept, since it decides no result by itself."
            what = none if setting in fields else unknown("setting to sweep", setting, setting, known)
            several, other = "Give all its values at once: it takes several.", f"Sweep a setting of {', '.join(TRAINED)}, sample or probe."
            do_next = several if setting in AVERAGES else other
            raise InputError(what, where=where, do_next=do_next)
        if setting in fixed:
            raise InputError(f"'{setting}' stands in `{fixed[setting]}` too.", where=where, do_next="Keep one of them.")
        if alike := [other for other in sweep if other != setting and other.endswith(f".{name}")]:
            what = f"'{setting}' and '{alike[0]}' would both be called {name} in the recipes' names."
            raise InputError(what, where=where, do_next="Sweep them in two experiments: what they share is computed once.")
        for index, value in enumerate(values):
            if value in values[:index]:
                raise InputError(f"{in_words('', value)} stands more than once.", where=str(document.origin(("sweep", setting, index))))


def check_names(document: Document, names: Sequence[str]) -> None:
    """Every recipe of the experiment has a name of its own."""
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        what, where = f"Two recipes have the same name: {', '.join(doubled)}.", str(document.origin(("recipes",)))
        raise InputError(what, where=where, do_next="Give your own recipe a `name:`.")


def check_own_metrics(named: Iterable[NamedMetric]) -> None:
    """Results have names of their own for the metrics of own code."""
    by_result: dict[str, Metric] = {}
    for each in (each for each in named if is_own(each.metric.name)):
        result = each.metric.result
        taken = result in METRICS or any(result.endswith(f"_{extractor}") for extractor in EXTRACTORS)
        if taken or by_result.setdefault(result, each.metric) != each.metric:
            what = f"Results already call something '{result}', as they would call '{each.text}'."
            raise InputError(what, where=each.line, do_next="Give the function another name.")


def named_metric(text: str, data_format: str, line: str) -> Metric:
    """The metric that the experiment names on this line, if it exists in features that the data have."""
    if not is_own(text) and split(text)[0] not in METRICS:
        if text.partition(".")[0] not in METRICS and (meant := meant_address(text)):
            raise InputError(f"There is no metric '{text}'. Did you mean '{meant}', of own code?", where=line)
        raise InputError(f"{unknown('metric', text, text, list(METRICS))} With an extractor: precision_dinov2.", where=line)
    try:
        return metric(text, data_format)
    except ValueError as error:
        raise InputError(str(error), where=line, do_next="docs/explanation/evaluation.md lists metrics and extractors.") from None


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
            or_none = ", or to 0 for an unconditional network" if setting == "classes" else ""
            what = f"network.{setting} is {given}; {data.format} has {has}."
            raise request.wrong(f"network.{setting}", what, f"Set network.{setting} to {has}{or_none}.")


def batch_fits_data(request: Request) -> None:
    """A batch has no more images than the data set has for training."""
    data, batch = request.recipe.data, request.recipe.training.batch
    count = data.facts.most_training_images(data.test_share)
    if count is not None and batch > count:
        what = f"training.batch is {batch:,}; {data.format} has {count:,} images for training."
        raise request.wrong("training.batch", what, f"Set training.batch to {count} or less.")


def decay_has_effect(request: Request) -> None:
    """Weights decay only if the network does not bring them back to unit size before every step."""
    network, training = request.recipe.network, request.recipe.training
    if isinstance(network, NetworkSettings) and network.weights == "forced" and training.weight_decay:
        what = f"training.weight_decay is {training.weight_decay:g}, and forced weight normalisation undoes it before the next step."
        do_next = "Set training.weight_decay to 0, or choose other network.weights."
        raise request.wrong("training.weight_decay", what, do_next)


def checkpoint_has_moments(request: Request) -> None:
    """A training goes on from a checkpoint with the optimizer whose moments the checkpoint holds."""
    recipe = request.recipe
    if recipe.start and recipe.training.optimizer != "adam":
        what = f"The checkpoint that {recipe.name} starts from holds Adam's moments, and training.optimizer is {recipe.training.optimizer}."
        raise request.wrong("training.optimizer", what, "Set training.optimizer to adam, or leave `start` out.")


def epochs_exist(request: Request) -> None:
    """Training has every epoch that is asked for, after the checkpoint that it starts from, and they are not too many to look at."""
    recipe, first, last = request.recipe, request.recipe.starts_after or 1, request.recipe.training.epochs
    if request.epochs_by_default and len(request.epochs) > MOST_SNAPSHOTS:
        what = f"{recipe.name} would have {len(request.epochs):,} snapshots, and each is looked at."
        raise request.wrong("epochs", what, "Name the `epochs:` to look at, or raise training.snapshot_every.")
    for index, epoch in enumerate(request.epochs):
        if epoch < first:
            what = f"Epoch {epoch} is before the checkpoint that {recipe.name} starts from, which has {first} epochs."
            raise request.wrong(f"epochs.{index}", what, f"Ask for epochs from {first} on.")
        if epoch > last:
            what = f"Epoch {epoch} is beyond the end of {recipe.name}'s training, which has {last} epochs."
            do_next = f"Ask for an epoch up to {last}, or set `overrides: {{training.epochs: {epoch}}}`."
            raise request.wrong(f"epochs.{index}", what, do_next)


def averages_suffice(request: Request) -> None:
    """Every EMA asked for will be in the snapshot, or can be mixed from those that training stores."""
    recipe, first = request.recipe, request.recipe.starts_after
    for (ema, section), epoch in product(request.averages, sorted(request.epochs)):
        setting = f"{section}.ema"
        if epoch == first and ema != "fixed":
            raise request.wrong(setting, f"The checkpoint that {recipe.name} starts from has no EMA {ema}.", "Ask for 'fixed'.")
        if not recipe.is_mixed(ema):
            continue
        stored = [e for e in recipe.training.stored_epochs(epoch) if e > first]
        error = mix_at(stored, recipe.training.ema_sigma_rel, epoch, float(ema)).error if recipe.training.ema_sigma_rel else 1.0
        if error > MOST_ERROR:
            what = (
                f"An average of relative width {ema} at epoch {epoch} of {recipe.name} could only be mixed with an error of {error:.0%}, "
                f"from those stored at {len(stored)} epochs by then; more than {MOST_ERROR:.0%} says nothing."
            )
            do_next = "Set training.average_every to fewer epochs (before training), or ask for a later epoch or another width."
            raise request.wrong(setting, what, do_next)


def blocks_exist(request: Request) -> None:
    """Every block to probe is one of the network's decoder blocks."""
    recipe = request.recipe
    if not request.probe or recipe.probe.blocks == ("all",):
        return
    if isinstance(recipe.network, OwnNetworkSettings):
        if recipe.probe.blocks == ProbeSettings().blocks:
            what = f"{recipe.name} has a network of your own, and nothing says which of its blocks to probe."
            do_next = "Name some of its `feature_blocks` in probe.blocks, or say all; or leave the probe out with `probe: false`."
            raise request.wrong("probe.blocks", what, do_next)
        return  # its names are known once it is built
    names = list(block_widths(recipe.network))
    if unknown := [block for block in recipe.probe.blocks if block not in names]:
        what = f"The network of {recipe.name} has no decoder block {', '.join(unknown)}."
        raise request.wrong("probe.blocks", what, f"Choose among {names[0]} … {names[-1]} for probe.blocks, or say all.")


def samples_suffice(request: Request) -> None:
    """Every metric has the samples that it needs, and as many images of a built-in data set to compare with."""
    recipe = request.recipe
    for named in request.named_metrics:
        if recipe.sample.count < named.metric.least_images:
            own = "fd" if recipe.data.facts.extractor else "fd_filters"
            without = f"say `metrics: [{own}]`; without it the experiment asks for FID."
            without = without if named.by_default else f"leave '{named.text}' out of `{named.setting}`."
            what = f"{recipe.sample.count} samples are too few for '{named.text}', which needs at least {_least(named.metric)}."
            raise request.wrong("sample.count", what, f"Raise sample.count of {recipe.name}, or {without}")
        count = None if recipe.reference else recipe.data.facts.most_training_images(recipe.data.test_share)
        if count is not None and count < named.metric.least_images:
            needed = f"'{named.text}' needs at least {named.metric.least_images} to compare with"
            do_next = "Ask for metrics in features of fewer dimensions, such as the data set's own."
            raise InputError(f"{recipe.data.format} has {count} images for training, and {needed}.", where=named.line, do_next=do_next)


def classes_suffice(request: Request) -> None:
    """A metric by class has class-conditional samples, and in each class more of them than the features have dimensions.

    Classes are drawn at random. Five standard deviations below the mean, a class of too few is a matter of one in a million.
    """
    recipe, classes = request.recipe, request.recipe.network.classes
    for named in request.named_metrics:
        if not METRICS[named.metric.name].by_class:
            continue
        if not classes:
            what = f"'{named.text}' compares class by class, and {recipe.name} is unconditional: its samples have no class."
            raise InputError(what, where=named.line, do_next="Leave it out, or name a class-conditional recipe, such as cifar10/E-cond.")
        share, least = recipe.sample.count / classes, named.metric.least_images
        if share - SURE * math.sqrt(share) < least:
            what = f"{recipe.sample.count} samples are {share:.0f} in each of {classes} classes, too few for '{named.text}'"
            enough = math.ceil(classes * ((SURE + math.sqrt(SURE**2 + 4 * least)) / 2) ** 2)
            why = f"{what}, which needs {least} in every class: a covariance of {least - 1} features needs them."
            raise request.wrong("sample.count", why, f"Set sample.count of {recipe.name} to {enough} or more, or leave '{named.text}' out.")
        train = recipe.data.facts.most_training_images(recipe.data.test_share)
        if train is not None:
            _enough_of_a_class(named.metric, train // classes, recipe.name, named.line)


def _enough_of_a_class(asked: Metric, images: int, recipe: str, where: str) -> None:
    """A class has the training images that a metric by class compares with."""
    if images < asked.least_images:
        needed = f"'{asked.result}' needs {asked.least_images} in every class"
        do_next = "Ask for it in features of fewer dimensions, such as fd_by_class_filters, or leave it out."
        raise InputError(f"A class of {recipe}'s data has {images} images for training, and {needed}.", where=where, do_next=do_next)


def reference_has_features(request: Request) -> None:
    """No metric needs the training images' own features if the recipe imports statistics instead."""
    recipe = request.recipe
    for named in request.named_metrics:
        if recipe.reference and named.metric.extractor == recipe.reference.extractor and METRICS[named.metric.name].needs == "features":
            what = f"'{named.text}' needs the training images' own features, which imported statistics do not hold."
            do_next = f"Leave it out here, and ask for it in an experiment without {recipe.name}'s `reference`: samples are shared."
            raise InputError(what, where=named.line, do_next=do_next)


def reference_is_used(request: Request) -> None:
    """Some distance is asked for in the features of the imported statistics."""
    recipe, metrics = request.recipe, [named.metric for named in request.named_metrics]
    if recipe.reference and metrics and not any(m.extractor == recipe.reference.extractor and m.name in FRECHET for m in metrics):
        words = EXTRACTORS[recipe.reference.extractor].words
        what = f"The imported reference of {recipe.name} is in {words}, in which no distance is asked for."
        raise request.wrong("metrics", what, "Import statistics in the features that `metrics` name, or name such metrics.")


def images_suffice(request: Request) -> None:
    """The data have the training images that every metric needs to compare with."""
    recipe, count = request.recipe, request.trained
    imported = recipe.reference.extractor if recipe.reference else None
    for asked in request.metrics:
        if count is not None and count < asked.least_images and asked.extractor != imported:
            what = f"The data of {recipe.name} have {count} images for training, and '{asked.result}' needs at least {_least(asked)}."
            raise InputError(what, where=_source_line(request), do_next=FEWER)


def each_class_suffices(request: Request) -> None:
    """Each class has the training images that a metric by class compares with."""
    for asked in request.metrics:
        if METRICS[asked.name].by_class and request.survey:
            _enough_of_a_class(asked, min(own.train for own in request.survey.counts), request.recipe.name, _source_line(request))


def classes_fit(request: Request) -> None:
    """A conditional network has as many classes as there are class folders."""
    recipe, classes = request.recipe, len(request.survey.counts) if request.survey else 0
    if request.survey and recipe.network.classes not in (0, classes):
        what = f"network.classes of {recipe.name} is {recipe.network.classes}; the data set has {classes} classes."
        raise request.wrong("network.classes", what, f"Set network.classes to {classes}, or to 0 for an unconditional network.")


def reference_is_of_data(request: Request) -> None:
    """Imported statistics are of as many images as there are for training."""
    reference, count = request.recipe.reference, request.trained
    if reference and count is not None:
        check_reference_count(reference.count, count, request.line("reference.count"))


def check_reference_count(stated: int, count: int, where: str) -> None:
    """Imported statistics are `stated` to be of as many images as the data have for training."""
    if stated != count:
        what = f"The imported statistics are of {stated} images, and the data have {count} for training."
        do_next = "Correct the recipe's `reference`, or leave it out: the statistics are then taken here."
        raise InputError(what, where=where, do_next=do_next)


def probe_has_images(request: Request) -> None:
    """Every class has images to train a probe, to choose a cell and to test on."""
    recipe = request.recipe
    if request.probe and request.survey:
        enough_to_probe(request.survey.counts, recipe.probe.holds_out, _source_line(request))
    elif request.probe and recipe.data.facts.builtin and not recipe.data.test_share:
        enough_to_probe([], recipe.probe.holds_out, request.line("data.test_share"))


def _source_line(request: Request) -> str:
    return f"{request.line('data.source')} (data.source: {request.recipe.data.source})"


def _least(metric: Metric) -> str:
    """How many images a metric needs at least, and why, where that is known."""
    why = f", since a covariance of {EXTRACTORS[metric.extractor].dimensions} features needs them" if metric.name in FRECHET else ""
    return f"{metric.least_images}{why}"
