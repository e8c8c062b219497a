"""The experiment file: which recipes, seeds and epochs to compare, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from edm2core.config.fields import Counts, Name, Seeds, Settings, once
from edm2core.config.recipes import lay, recipe_document
from edm2core.config.settings import Recipe
from edm2core.config.validate import build, unknown
from edm2core.config.yaml_file import Document, Place, load, read_text, without_secrets
from edm2core.diffusion.layout import block_names
from edm2core.diffusion.posthoc import MOST_ERROR, mix_at
from edm2core.errors import InputError
from edm2core.metrics.names import FRECHET, Metric, metric, split
from edm2core.paths import located
from edm2core.plan.sweep import Swept, lay_point, points
from edm2core.registry import EXTRACTORS, METRICS

Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]

SHOWN = 64  # samples that are drawn where nothing is measured, unless the experiment says how many: a grid of 8 x 8
PRECISE = ("training", "sample", "probe")  # sections that have a precision
MOST_SNAPSHOTS = 10_000  # of a training, where the experiment does not name its epochs
LAID = ("sample", "probe", "diagnostics")  # sections of the experiment that are laid over the recipes' own


class ExperimentFile(Settings):
    """The settings of an experiment file, as written."""

    name: Name
    recipes: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    seeds: Seeds = (0,)
    epochs: Counts | None = None  # snapshots to evaluate; none: each recipe's snapshot_every, and its end
    sample: (
        dict[str, Any] | Literal[True]
    ) = {}  # over every recipe's sample section; where it stands, samples are drawn without metrics too
    metrics: Annotated[tuple[str, ...], Field(strict=False)] = ("fid",)  # such as fid, precision_dinov2 (docs/evaluation.md)
    optional_metrics: Annotated[
        tuple[str, ...], Field(strict=False)
    ] = ()  # left out, and said so, where their extractor's weights are absent
    probe: dict[str, Any] | bool = True  # over every recipe's probe section; false: no probe
    diagnostics: dict[str, Any] | bool = False  # over every recipe's diagnostics section; true: as they stand there
    exact: bool = False  # computed in float32 everywhere: no half precision, no TF32, deterministic kernels, nothing compiled
    recheck: Annotated[int, Field(ge=0, le=1000)] = 0  # fresh draws that each training's best snapshot is evaluated with again
    overrides: dict[str, Any] = {}  # dotted settings over every recipe
    sweep: dict[str, Values] = {}  # dotted setting → its values: each recipe at each of them is a recipe of its own
    inception_weights: str | None = None  # path or URL of weights-inception-2015-12-05-6726825d.pth
    dinov2_weights: str | None = None  # path of dinov2_vitl14_pretrain.pth

    _once = field_validator("recipes", "epochs", "metrics", "optional_metrics")(once)


@dataclass(frozen=True)
class Experiment:
    """An experiment ready to be planned: its recipes complete, its epochs checked."""

    name: str
    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    epochs: dict[str, tuple[int, ...]]  # recipe name → completed epochs, ascending
    metrics: dict[str, tuple[Metric, ...]]  # recipe name → metrics, in the order of METRICS
    probe: bool
    diagnostics: bool
    weights: dict[str, str | None]  # inception, dinov2 → path or URL of the weights, if named
    text: str  # the file as written, addresses without their secrets
    swept: dict[str, Swept] = field(default_factory=dict)  # recipe name → where it stands in the sweep; empty where nothing is swept
    recheck: int = 0  # fresh draws
    shown: dict[str, int] = field(default_factory=dict)  # recipe name → samples where nothing is measured; empty where none are asked for
    optional: frozenset[Metric] = frozenset()  # of the metrics, those that are left out where their extractor's weights are absent


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises InputError for anything wrong in it or in a recipe it names, with the line.
    """
    document = load(path)
    file = build(ExperimentFile, document)
    swept: dict[str, Swept] = {}
    recipes: tuple[Recipe, ...] = ()
    for index, point in product(range(len(file.recipes)), points(document, file.sweep, _fixed(file))):
        recipe = _recipe(document, file, index, point, path.parent)
        if point:
            place = Swept(recipe.name, {setting: file.sweep[setting][number] for setting, number in point.items()})
            recipe = recipe.model_copy(update={"name": place.name})
            swept[recipe.name] = place
        recipes = (*recipes, recipe)
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise InputError(
            f"Two recipes have the same name: {', '.join(names)}.",
            where=str(document.origin(("recipes",))),
            do_next="Give your own recipe a `name:`.",
        )
    epochs = {recipe.name: _epochs(document, file, recipe) for recipe in recipes}
    for recipe in recipes:
        _averages_suffice(document, file, recipe, epochs[recipe.name])
        if file.probe is not False:
            _blocks_exist(document, recipe)
    required = {recipe.name: _metrics(document, file, recipe, "metrics") for recipe in recipes}
    optional = {recipe.name: _metrics(document, file, recipe, "optional_metrics") for recipe in recipes}
    for recipe in recipes:
        _reference_is_used(document, file, recipe, (*required[recipe.name], *optional[recipe.name]))
    return Experiment(
        file.name,
        recipes,
        file.seeds,
        epochs,
        {name: _ordered({*metrics, *optional[name]}) for name, metrics in required.items()},
        file.probe is not False,
        file.diagnostics is not False,
        _weights(document, file),
        without_secrets(read_text(path)),
        swept,
        file.recheck,
        {recipe.name: _shown(file, recipe) for recipe in recipes if "sample" in document.values},
        frozenset({m for found in optional.values() for m in found} - {m for found in required.values() for m in found}),
    )


def _shown(file: ExperimentFile, recipe: Recipe) -> int:
    """How many samples are drawn where nothing is measured: a recipe's own count is for measuring."""
    return recipe.sample.count if "sample.count" in {**_fixed(file), **file.sweep} else SHOWN


def _metrics(document: Document, file: ExperimentFile, recipe: Recipe, setting: str) -> tuple[Metric, ...]:
    """The metrics that a setting asks for, each once, where the recipe's data and samples allow them."""
    found: set[Metric] = set()
    for index, text in enumerate(getattr(file, setting)):
        where = str(document.origin((setting, index)))
        if split(text)[0] not in METRICS:
            raise InputError(f"{unknown('metric', text, text, list(METRICS))} With an extractor: precision_dinov2.", where=where)
        try:
            asked = metric(text, recipe.data.format)
        except ValueError as error:
            raise InputError(str(error), where=where, do_next="docs/evaluation.md lists metrics and extractors.") from None
        if recipe.sample.count < asked.least_images:
            features = EXTRACTORS[asked.extractor].dimensions
            own = "fd" if recipe.data.facts.extractor else "fd_filters"
            covariance = f", since a covariance of {features} features needs them" if asked.name in FRECHET else ""
            raise InputError(
                f"{recipe.sample.count} samples are too few for '{text}', which needs at least {asked.least_images}{covariance}.",
                where=_written(document, "sample.count"),
                do_next=f"Raise sample.count of {recipe.name}, or leave '{text}' out of `{setting}`."
                if setting in document.values
                else f"Raise sample.count of {recipe.name}, or say `metrics: [{own}]`; without it the experiment asks for FID.",
            )
        count = None if recipe.reference else recipe.data.facts.most_training_images(recipe.data.test_share)
        if count is not None and count < asked.least_images:
            raise InputError(
                f"{recipe.data.format} has {count} images for training, and '{text}' needs at least {asked.least_images} to compare with.",
                where=where,
                do_next="Ask for metrics in features of fewer dimensions, such as the data set's own.",
            )
        if recipe.reference and asked.extractor == recipe.reference.extractor and METRICS[asked.name].needs == "features":
            raise InputError(
                f"'{text}' needs the training images' own features, which imported statistics do not hold.",
                where=where,
                do_next=f"Leave it out here, and ask for it in an experiment without {recipe.name}'s `reference`: samples are shared.",
            )
        found.add(asked)
    return _ordered(found)


def _ordered(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    return tuple(sorted(metrics, key=lambda each: (list(EXTRACTORS).index(each.extractor), list(METRICS).index(each.name))))


def _reference_is_used(document: Document, file: ExperimentFile, recipe: Recipe, metrics: tuple[Metric, ...]) -> None:
    if recipe.reference and metrics and not any(a.extractor == recipe.reference.extractor and a.name in FRECHET for a in metrics):
        words = EXTRACTORS[recipe.reference.extractor].words
        raise InputError(
            f"The imported reference of {recipe.name} is in {words}, in which no distance is asked for.",
            where=str(document.origin(("metrics",))),
            do_next="Import statistics in the features that `metrics` name, or name such metrics.",
        )


def _averages_suffice(document: Document, file: ExperimentFile, recipe: Recipe, epochs: tuple[int, ...]) -> None:
    """Every average asked for will be in the snapshot, or can be mixed from those that training stores."""
    sampled = file.metrics or file.optional_metrics or "sample" in document.values
    asked = [(ema, "sample") for ema in recipe.sample.ema if sampled] + [(recipe.probe.ema, "probe")] * (file.probe is not False)
    asked += [(recipe.diagnosed_ema, "diagnostics")] * (file.diagnostics is not False)
    first = (recipe.start.completed if recipe.start else None) or 0
    for (ema, section), epoch in product(asked, epochs):
        where = _written(document, f"{section}.ema")
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


def _fixed(file: ExperimentFile) -> dict[str, str]:
    """The dotted settings that the experiment gives every recipe, and under which name it does."""
    sections = {name: chosen for name in LAID if isinstance(chosen := getattr(file, name), dict)}
    own = {f"{section}.{setting}": section for section, chosen in sections.items() for setting in chosen}
    return own | dict.fromkeys(file.overrides, "overrides")


def _written(document: Document, setting: str) -> str:
    """Where the experiment gives its recipes a dotted setting: among its overrides, or in the section of that name."""
    overrides = document.values.get("overrides")
    place = ("overrides", setting) if isinstance(overrides, dict) and setting in overrides else tuple(setting.split("."))
    return str(document.origin(place))


def _blocks_exist(document: Document, recipe: Recipe) -> None:
    """Every block that is to be probed is one of the network's."""
    names = block_names(recipe.network)
    if unknown := [block for block in recipe.probe.blocks if block not in names and recipe.probe.blocks != ("all",)]:
        raise InputError(
            f"The network of {recipe.name} has no decoder block {', '.join(unknown)}.",
            where=_written(document, "probe.blocks"),
            do_next=f"Choose among {names[0]} … {names[-1]} for probe.blocks, or say all.",
        )


def _exactly(file: ExperimentFile) -> dict[str, Any]:
    """What `exact` lays over every recipe; a precision that the experiment itself asks for stays, and is refused where it is another."""
    own = {**_fixed(file), **file.sweep}
    precise = {f"{section}.precision": "fp32" for section in PRECISE if f"{section}.precision" not in own}
    return {f"{section}.exact": True for section in PRECISE} | precise if file.exact else {}


def _recipe(document: Document, file: ExperimentFile, index: int, point: dict[str, int], base: Path) -> Recipe:
    recipe = recipe_document(file.recipes[index], base, str(document.origin(("recipes", index))))
    for section in LAID:
        chosen = getattr(file, section)
        for setting, value in (chosen if isinstance(chosen, dict) else {}).items():
            recipe = lay(recipe, f"{section}.{setting}", value, document.origin((section, setting)))
    for setting, value in file.overrides.items():
        recipe = lay(recipe, setting, value, document.origin(("overrides", setting)))
    for setting, value in _exactly(file).items():
        recipe = lay(recipe, setting, value, document.origin(("exact",)))
    return complete(lay_point(recipe, document, file.sweep, point))


def complete(recipe: Document) -> Recipe:
    """The recipe of a document, its paths made whole: each is relative to the file that names it. Raises InputError for a wrong setting."""
    built = build(Recipe, recipe)
    _fits_data(recipe, built)
    found: dict[str, Any] = {"data": built.data.model_copy(update={"channels": _channels(built)})}
    if built.data.source is not None:
        source = _located(recipe, ("data", "source"), built.data.source, urls=True)
        found["data"] = found["data"].model_copy(update={"source": source})
    if built.start:
        checkpoint = _located(recipe, ("start", "checkpoint"), built.start.checkpoint)
        found["start"] = built.start.model_copy(update={"checkpoint": checkpoint})
    if built.reference:
        statistics = _located(recipe, ("reference", "source"), built.reference.source)
        found["reference"] = built.reference.model_copy(update={"source": statistics})
    return built.model_copy(update=found)


def _channels(recipe: Recipe) -> Literal[1, 3]:
    """Own images become grey where the network is of grey ones."""
    stated = recipe.data.facts.shape or "channels" in recipe.data.model_fields_set
    return 1 if not stated and recipe.network.image_channels == 1 else recipe.data.channels


def _fits_data(document: Document, recipe: Recipe) -> None:
    """The network is of images as the data set has them, and a batch is of no more than it has."""
    network, facts = recipe.network, recipe.data.facts
    channels, side, _ = facts.shape or (_channels(recipe), recipe.data.resolution, None)
    if facts.resized:
        side = recipe.data.resolution or side
    for setting, given, has in (
        ("image_channels", network.image_channels, channels),
        ("resolution", network.resolution, side),
        ("classes", network.classes or facts.classes, facts.classes),
    ):
        if has is not None and given != has:
            raise InputError(
                f"network.{setting} is {given}; {recipe.data.format} has {has}.",
                where=str(document.origin(("network", setting))),
                do_next=f"Set network.{setting} to {has}" + (", or to 0 for an unconditional network." if setting == "classes" else "."),
            )
    count = facts.most_training_images(recipe.data.test_share)
    if count is not None and recipe.training.batch > count:
        raise InputError(
            f"training.batch is {recipe.training.batch:,}; {recipe.data.format} has {count:,} images for training.",
            where=str(document.origin(("training", "batch"))),
            do_next=f"Set training.batch to {count} or less.",
        )


def _located(document: Document, place: Place, address: str, urls: bool = False) -> str:
    """A path written in a file is relative to that file."""
    origin = document.origin(place)
    return located(address, Path(origin.file).parent, str(origin), urls=urls)


def _weights(document: Document, file: ExperimentFile) -> dict[str, str | None]:
    named = {kind: getattr(file, f"{kind}_weights") for kind in ("inception", "dinov2")}
    return {kind: source and _located(document, (f"{kind}_weights",), source, urls=True) for kind, source in named.items()}


def _epochs(document: Document, file: ExperimentFile, recipe: Recipe) -> tuple[int, ...]:
    last, first = recipe.training.epochs, (recipe.start.completed if recipe.start else None) or 1
    if file.epochs is None:
        if last // recipe.training.snapshot_every > MOST_SNAPSHOTS:
            raise InputError(
                f"{recipe.name} would have {last // recipe.training.snapshot_every:,} snapshots, and each is looked at.",
                where=str(document.origin(())),
                do_next="Name the `epochs:` to look at, or raise training.snapshot_every.",
            )
        every = {*range(recipe.training.snapshot_every, last + 1, recipe.training.snapshot_every), last}
        return tuple(sorted(epoch for epoch in every if epoch >= first))
    for index, epoch in enumerate(file.epochs):
        if epoch < first:
            raise InputError(
                f"Epoch {epoch} is before the checkpoint that {recipe.name} starts from, which has {first} epochs.",
                where=str(document.origin(("epochs", index))),
                do_next=f"Ask for epochs from {first} on.",
            )
        if epoch > last:
            raise InputError(
                f"Epoch {epoch} is beyond the end of {recipe.name}'s training, which has {last} epochs.",
                where=str(document.origin(("epochs", index))),
                do_next=f"Ask for an epoch up to {last}, or set `overrides: {{training.epochs: {epoch}}}`.",
            )
    return tuple(sorted(file.epochs))
