"""The experiment file: which recipes, seeds and epochs to compare, and how."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from edm2core.config.fields import Count, Listed, Name, NotEmpty, Seeds, Settings, described, once
from edm2core.config.given import Given, lay_given, text_of, text_with
from edm2core.config.recipes import lay, recipe_document
from edm2core.config.settings import Recipe
from edm2core.config.validate import build
from edm2core.config.yaml_file import Document, Origin, SettingPath, load, parse, read_text, without_secrets
from edm2core.errors import InputError
from edm2core.metrics.names import Metric
from edm2core.own_code.settings import Library, metric_settings, sweepable, with_own_settings
from edm2core.own_code.source import OwnCode
from edm2core.paths import located
from edm2core.plan import checks
from edm2core.plan.checks import NamedMetric, Request
from edm2core.plan.subject import Swept
from edm2core.registry import EXTRACTORS, METRICS, is_own

SHOWN = 64  # samples that are drawn if nothing is measured, unless the experiment says how many: a grid of 8 x 8
NO_FILE = "the experiment given as a dictionary"
PRECISE = ("training", "sample", "probe")  # sections that have a precision
LAID = ("sample", "probe", "diagnostics")  # sections of the experiment that replace the recipes' own, setting by setting


class ExperimentFile(Settings):
    """The settings of an experiment file, as written."""

    name: Name = described(..., "Name of the experiment, with which its runs' names begin.")
    recipes: NotEmpty[str] = described(..., "Recipes to compare: names of published ones, or paths of files that end in .yaml.")
    seeds: Seeds = described((0,), "Training seeds; each recipe is trained once with each.")
    epochs: NotEmpty[Count] | None = described(
        None, "Completed epochs to look at; null looks at every training.snapshot_every of each recipe, and at its last."
    )
    sample: dict[str, Any] | Literal[True] = described(
        {}, "Settings that replace those of every recipe's `sample`; where the section stands, samples are drawn without metrics too."
    )
    metrics: Listed[str | dict[str, Any]] = described(
        ("fid",), "Metrics of the samples, such as fid, precision_dinov2, or of own code {use: my_metrics:histogram, bins: 8}."
    )
    optional_metrics: Listed[str] = described(
        (), "More metrics, which are left out with a note if the weights of their extractor are absent."
    )
    probe: dict[str, Any] | bool = described(True, "Settings that replace those of every recipe's `probe`; false leaves probes out.")
    diagnostics: dict[str, Any] | bool = described(
        False, "Settings that replace those of every recipe's `diagnostics`; true takes the recipe's, false leaves diagnostics out."
    )
    exact: bool = described(
        False, "Whether everything is computed in plain float32: no half precision, no TF32, deterministic kernels, nothing compiled."
    )
    recheck: Annotated[int, Field(ge=0, le=1000)] = described(0, "Fresh draws with which each training's best snapshot is evaluated again.")
    overrides: dict[str, Any] = described({}, "Dotted settings, such as training.lr, that replace those of every recipe.")
    sweep: dict[str, NotEmpty[Any]] = described(
        {}, "Dotted settings with a list of values each; each recipe at each value is a recipe of its own."
    )
    code: str | None = described(None, "Folder of own code that settings name as module:callable; null is the experiment's own folder.")
    inception_weights: str | None = described(None, "Path or URL of weights-inception-2015-12-05-6726825d.pth.")
    dinov2_weights: str | None = described(None, "Path of dinov2_vitl14_pretrain.pth.")

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
    swept: dict[str, Swept] = field(default_factory=dict)  # recipe name → its point in the sweep; empty without a sweep
    recheck: int = 0  # fresh draws
    shown: dict[str, int] = field(default_factory=dict)  # recipe name → samples to draw if nothing is measured; empty if none are asked for
    optional: frozenset[Metric] = frozenset()  # the metrics that are left out if their extractor's weights are absent
    lines: dict[str, Callable[[str], str]] = field(default_factory=dict)  # recipe name → the file and line of a dotted setting
    code: dict[str, OwnCode] = field(default_factory=dict)  # package → where it lies


def load_experiment(path: Path, given: Sequence[Given] = ()) -> Experiment:
    """Read and check an experiment file, with the settings that were `given` beside it in place of its own.

    Raises InputError with the line for anything wrong in it or in a recipe that it names, and with the words of a wrong `given`.
    """
    return _checked(load(path), read_text(path), path.parent, given)


def experiment_of(values: Mapping[str, Any]) -> Experiment:
    """Check an experiment given as a dictionary, whose relative paths are relative to the working directory.

    Raises InputError for anything wrong in it or in a recipe that it names.
    """
    try:
        text = text_of(json.loads(json.dumps(values, default=_as_text)))
    except (TypeError, ValueError) as error:
        plain = "Use text, numbers, true or false, None, lists and dictionaries."
        raise InputError(f"The experiment holds what YAML does not have: {error}.", where=NO_FILE, do_next=plain) from None
    document = parse(text, NO_FILE)
    return _checked(Document(document.values, dict.fromkeys(document.origins, Origin(NO_FILE))), text, Path(), ())


def _as_text(value: Any) -> Any:
    """The value of a path or of a numpy number as JSON has it."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def _checked(written: Document, text: str, folder: Path, given: Sequence[Given]) -> Experiment:
    """The experiment of a document whose text is `text` and which names recipes relative to `folder`."""
    document = lay_given(written, given, ExperimentFile.model_fields, Recipe.model_fields)
    file = build(ExperimentFile, document)
    recipes, swept, lines = list[Recipe](), dict[str, Swept](), dict[str, Callable[[str], str]]()
    library = Library(folder if file.code is None else Path(_located(document, ("code",), file.code)))
    checks.check_sweep(document, file.sweep, _fixed(file), _swept_own(document, file, folder, library))
    for index, *numbers in product(range(len(file.recipes)), *(range(len(values)) for values in file.sweep.values())):
        point = dict(zip(file.sweep, numbers, strict=True))  # of each swept setting the index of a value
        laid = with_own_settings(_laid(document, file, index, point, folder), library)
        recipe = complete(laid)
        if point:
            at = Swept(recipe.name, {setting: file.sweep[setting][number] for setting, number in point.items()})
            recipe = recipe.model_copy(update={"name": at.name})
            swept[recipe.name] = at
        recipes.append(recipe)
        lines[recipe.name] = partial(_line, laid)
    checks.check_names(document, [recipe.name for recipe in recipes])
    epochs = {recipe.name: _epochs(file, recipe) for recipe in recipes}
    named = {recipe.name: _named_metrics(document, file, recipe, library) for recipe in recipes}
    every = [each for of_recipe in named.values() for each in of_recipe]
    checks.check_own_metrics(every)
    line, probe = partial(_written, document), file.probe is not False
    counted = "sample.count" in {**_fixed(file), **file.sweep}  # by the experiment; a recipe's own count is for measuring
    for recipe in recipes:
        averages = _averages(document, file, recipe)
        checks.check_request(Request(recipe, line, epochs[recipe.name], not file.epochs, averages, named[recipe.name], probe=probe))
        checks.check_guide(Request(recipe, lines[recipe.name], epochs[recipe.name]), recipes, swept, file.seeds)
    return Experiment(
        file.name,
        tuple(recipes),
        file.seeds,
        {name: tuple(sorted(asked)) for name, asked in epochs.items()},
        {name: tuple(sorted({each.metric for each in of_recipe}, key=_in_tables)) for name, of_recipe in named.items()},
        probe,
        file.diagnostics is not False,
        _weights(document, file),
        without_secrets(text_with(text, written.values, document.values)),
        swept,
        file.recheck,
        {recipe.name: recipe.sample.count if counted else SHOWN for recipe in recipes if "sample" in document.values},
        frozenset(each.metric for each in every) - {each.metric for each in every if each.setting == "metrics"},
        lines,
        library.found,
    )


def _swept_own(document: Document, file: ExperimentFile, folder: Path, library: Library) -> set[str]:
    """The settings of own code that the experiment's sweep may name. Without a sweep none are looked for."""
    if not file.sweep:
        return set()
    origins = {path[1:]: at for path, at in document.origins.items() if path[:1] == ("sweep",)}
    recipes = (_laid(document, file, index, {}, folder) for index in range(len(file.recipes)))
    return sweepable(recipes, Document(dict(file.sweep), origins), library)


def _named_metrics(document: Document, file: ExperimentFile, recipe: Recipe, library: Library) -> tuple[NamedMetric, ...]:
    """The metrics that the experiment names, each with its line."""
    named: list[NamedMetric] = []
    for setting in ("metrics", "optional_metrics"):
        for index, written in enumerate(getattr(file, setting)):
            line = str(document.origin((setting, index)))
            given = dict(written) if isinstance(written, dict) else {"use": written}
            text = given.pop("use", None)
            if not isinstance(text, str) or (given and not is_own(text)):
                what = "Settings belong to a metric of own code, whose address `use` names."
                raise InputError(what, where=line, do_next="Write {use: my_metrics:histogram, bins: 8}, or the metric's name alone.")
            metric = checks.named_metric(text, recipe.data.format, line)
            if is_own(text):
                origins = {path[2:]: at for path, at in document.origins.items() if path[:2] == (setting, index)}
                settings = metric_settings(text, Document(given, {**origins, (): document.origin((setting, index))}), library)
                metric = metric._replace(options=tuple(settings.items()))
            named.append(NamedMetric(metric, text, setting, line, setting not in document.values))
    return tuple(named)


def _averages(document: Document, file: ExperimentFile, recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """Each EMA that is used, and the section that asks for it."""
    sampled = file.metrics or file.optional_metrics or "sample" in document.values
    averages = [(ema, "sample") for ema in recipe.sample.ema if sampled] + [(recipe.probe.ema, "probe")] * (file.probe is not False)
    return (*averages, *[(recipe.diagnosed_ema, "diagnostics")] * (file.diagnostics is not False))


def _in_tables(metric: Metric) -> tuple[int, int, str, str]:
    """What metrics are sorted by: the order of extractors and metrics in tables, then own ones by their address."""
    if is_own(metric.name):
        return len(EXTRACTORS), 0, metric.name, metric.result
    return list(EXTRACTORS).index(metric.extractor), list(METRICS).index(metric.name), "", ""


def _replaced(file: ExperimentFile) -> Iterator[tuple[str, Any, tuple[str, str]]]:
    """The dotted settings that the experiment gives every recipe, their values, and where they stand in it."""
    for section in LAID:
        chosen = getattr(file, section)
        yield from ((f"{section}.{name}", value, (section, name)) for name, value in chosen.items()) if isinstance(chosen, dict) else ()
    yield from ((setting, value, ("overrides", setting)) for setting, value in file.overrides.items())


def _fixed(file: ExperimentFile) -> dict[str, str]:
    """The dotted settings that the experiment gives every recipe, each with the section of the file that does so."""
    return {setting: path[0] for setting, _, path in _replaced(file)}


def _written(document: Document, setting: str) -> str:
    """The line where the experiment gives its recipes a dotted setting: among its overrides, else in the section of that name."""
    own: SettingPath = tuple(int(part) if part.isdigit() else part for part in setting.split("."))
    return str(document.origin(("overrides", setting) if setting in document.values.get("overrides", {}) else own))


def _exactly(file: ExperimentFile) -> dict[str, Any]:
    """What `exact` gives every recipe. A precision that the experiment asks for stays, and the recipe's check refuses half precision."""
    own = {**_fixed(file), **file.sweep}
    precise = {f"{section}.precision": "fp32" for section in PRECISE if f"{section}.precision" not in own}
    return {f"{section}.exact": True for section in PRECISE} | precise if file.exact else {}


def _laid(document: Document, file: ExperimentFile, index: int, point: dict[str, int], base: Path) -> Document:
    """The recipe's document with all settings that the experiment replaces."""
    recipe = recipe_document(file.recipes[index], base, str(document.origin(("recipes", index))))
    laid: list[tuple[str, Any, SettingPath]] = [*_replaced(file), *((*exactly, ("exact",)) for exactly in _exactly(file).items())]
    laid += [(setting, file.sweep[setting][number], ("sweep", setting, number)) for setting, number in point.items()]
    for setting, value, written in laid:
        recipe = lay(recipe, setting, value, document.origin(written))
    return recipe


def complete(recipe: Document) -> Recipe:
    """The recipe of a document, with whole paths: each is relative to the file that names it. Raises InputError for a wrong setting."""
    built = build(Recipe, recipe)
    built = built.model_copy(update={"data": built.data.model_copy(update={"channels": _channels(built)})})
    checks.check_recipe(Request(built, partial(_line, recipe)))
    for section, name in (("data", "source"), ("start", "checkpoint"), ("reference", "source")):
        settings = getattr(built, section)
        if settings is not None and (address := getattr(settings, name)) is not None:
            whole = settings.model_copy(update={name: _located(recipe, (section, name), address, urls=section == "data")})
            built = built.model_copy(update={section: whole})
    return built


def _channels(recipe: Recipe) -> Literal[1, 3]:
    """The data's channels. A user's images become grey if the network is for grey images and data.channels is not set."""
    stated = recipe.data.facts.shape or "channels" in recipe.data.model_fields_set
    return 1 if not stated and recipe.network.image_channels == 1 else recipe.data.channels


def _line(document: Document, setting: str) -> str:
    """The file and line of a recipe's dotted setting, or of its section if the setting is not written."""
    return str(document.origin(tuple(setting.split("."))))


def _located(document: Document, path: SettingPath, address: str, urls: bool = False) -> str:
    """The whole path of `address`, which the file names relative to itself."""
    origin = document.origin(path)
    return located(address, origin.folder, str(origin), urls=urls)


def _weights(document: Document, file: ExperimentFile) -> dict[str, str | None]:
    named = {kind: getattr(file, f"{kind}_weights") for kind in ("inception", "dinov2")}
    return {kind: source and _located(document, (f"{kind}_weights",), source, urls=True) for kind, source in named.items()}


def _epochs(file: ExperimentFile, recipe: Recipe) -> tuple[int, ...]:
    """The epochs to look at, as the experiment lists them, else every `snapshot_every` and the last, after the start's checkpoint."""
    last, every = recipe.training.epochs, recipe.training.snapshot_every
    return file.epochs or tuple(e for e in sorted({*range(every, last + 1, every), last}) if e >= recipe.starts_after)
