"""Writes docs/reference from the code: settings, commands, choices, results, store and Python. `make docs` runs it."""

import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import click
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticUndefined

from components.launcher.profile import Profile
from edm2core import registry
from edm2core.config.describe import MEANINGS
from edm2core.config.fields import OWN, is_keyed, section_in
from edm2core.config.settings import Recipe
from edm2core.plan.experiment import ExperimentFile
from edm2core.plan.manifest import Manifest
from edm2core.plan.stages import STAGES
from edm2core.report.frontier_words import FRONTIER
from edm2core.report.seeds import DIFFERENCE, SPREAD
from edm2core.report.write import ROW
from pipelines.cli.main import GROUPS

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make docs` from the code. Change the code, then run it again. -->"


def pages() -> dict[str, str]:
    """File name → text, of every generated page."""
    return {
        "settings.md": settings_page(),
        "profile.md": profile_page(),
        "commands.md": commands_page(),
        "choices.md": choices_page(),
        "results.md": results_page(),
        "store.md": store_page(),
        "python.md": python_page(),
    }


def page(title: str, about: str, *parts: str) -> str:
    return "\n\n".join((f"# {title}", NOTE, about, *parts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar within a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


# Settings


def settings_page() -> str:
    about = (
        "Every setting of an experiment and of a recipe. A *keyed* setting decides what comes out: another value is another result. "
        "One that is not keyed says how the work is done: changing it computes nothing again. A setting that is left out has its default. "
        "The settings of [own code](../how-to/own-code.md) are those of its signature, written beside the others of its section."
    )
    experiment = section_table(ExperimentFile, keyed=False)
    note = "An experiment's own settings are in no key. They choose recipes and replace settings of them, and those are keyed as below."
    return page("Settings", about, "## The experiment", note, experiment, "## The recipe", *sections(Recipe, keyed=True))


def profile_page() -> str:
    about = (
        "Every setting of a cluster profile. A profile says where jobs run and what they get. It changes no result, so no key holds it. "
        "[Set a cluster up](../how-to/cluster.md) shows a whole profile."
    )
    return page("Cluster profile", about, *sections(Profile, keyed=False))


def sections(section: type[BaseModel], *, keyed: bool, name: str = "") -> Iterator[str]:
    """The table of a section, then those of the sections in it. Sections of one kind, such as each stage's resources, share a table."""
    yield section_table(section, keyed=keyed, name=name)
    names = dict[type[BaseModel], list[str]]()
    for part, field in section.model_fields.items():
        if inner := section_in(field.annotation):
            names.setdefault(inner, []).append(f"{name}.{part}".lstrip("."))
    for inner, alike in names.items():
        yield f"### `{alike[0]}`" if len(alike) == 1 else f"### `{name}.<stage>`"
        yield inspect.getdoc(inner) or ""
        yield from sections(inner, keyed=keyed, name=alike[0] if len(alike) == 1 else f"{name}.<stage>")


def section_table(section: type[BaseModel], *, keyed: bool, name: str = "") -> str:
    head = ("setting", "type", "default", *(("keyed",) if keyed else ()), "meaning")
    fields = ((setting, field) for setting, field in section.model_fields.items() if setting != OWN)
    return table(head, (_row(f"{name}.{setting}".lstrip("."), field, keyed) for setting, field in fields))


def _row(name: str, field: FieldInfo, keyed: bool) -> tuple[str, ...]:
    inner = section_in(field.annotation)
    kind = "section" + (" or null" if NoneType in get_args(field.annotation) else "") if inner else kind_in_words(field)
    default = _default(field, has_section=inner is not None)
    answer = ("" if inner or name == "name" else "yes" if is_keyed(field) else "no",) if keyed else ()
    values = MEANINGS.get(name, {})
    meant = "; ".join(f"`{_yaml(value)}`: {words}" for value, words in values.items())
    return f"`{name}`", kind, default, *answer, f"{field.description}{f' In words: {meant}.' if meant else ''}"


def _default(field: FieldInfo, *, has_section: bool) -> str:
    if field.default is PydanticUndefined or field.default is ...:
        return "*required*"
    if has_section:
        return "`null`" if field.default is None else ""
    return f"`{_yaml(field.default)}`"


def _yaml(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    plain = json.loads(json.dumps(value, default=list))
    return str(yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000)).removesuffix("\n").removesuffix("\n...")


def kind_in_words(field: FieldInfo) -> str:
    """A setting's type, with its range or its choices."""
    return _kind(field.annotation, field.metadata)


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], (*annotation.__metadata__, *metadata))
    if said := next(filter(None, map(_demanded, metadata)), ""):
        return said
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(each) for each in arguments))
    if origin is Literal:
        return ", ".join(f"`{_yaml(each)}`" for each in arguments)
    if origin is tuple:
        several = len(arguments) == 2 and arguments[1] is ...
        return f"list of {_kind(arguments[0])}" if several else f"{len(arguments)} of {_kind(arguments[0])}"
    if origin is dict:
        return "names with values"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", NoneType: "null", Any: "any value"}
    return words.get(annotation, str(annotation)) + _range(metadata)


def _range(metadata: Iterable[Any]) -> str:
    """The bounds of a number."""
    flat = [item for each in metadata for item in (each.metadata if isinstance(each, FieldInfo) else [each])]
    words = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    bounds = [f"{words[type(item)][0]} {getattr(item, words[type(item)][1])}" for item in flat if type(item) in words]
    return f" {', '.join(bounds)}" if bounds else ""


def _demanded(check: Any) -> str:
    """What a check of the settings' own says a text must be; empty for any other."""
    if isinstance(check, AfterValidator):
        try:
            check.func("\0")  # type: ignore[call-arg]
        except PydanticCustomError as error:
            return error.message().removeprefix("must be ") if error.type == "must_be" else ""
        except (ValueError, TypeError, AttributeError):
            return ""
    return ""


# Commands


def commands_page() -> str:
    about = (
        "Every verb of `edm2`, with its options. `edm2 VERB --help` prints the same. "
        "Exit codes: 0 done, 1 a task failed, 2 wrong input, 130 interrupted."
    )
    parts = list[str]()
    for group, verbs in GROUPS.items():
        parts.append(f"## {group}")
        for verb in verbs:
            command: click.Command = importlib.import_module(f"pipelines.cli.{verb}").command
            parts += _command(command, f"edm2 {verb}")
    return page("Commands", about, *parts)


def _command(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield f"### {name}"
    arguments = " ".join(command.collect_usage_pieces(context))
    yield f"`{name} {arguments}`"
    yield re.sub(r"\s*\n(?!\n)", " ", inspect.cleandoc(command.help or "").replace("\b\n", "")).replace("\n ", "\n\n")
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    rows = [(f"`{names}`", " ".join(text.split())) for names, text in records if text and "--help" not in names]
    if rows:
        yield table(("option", "meaning"), rows)
    for inner, verb in getattr(command, "commands", {}).items():
        yield from _command(verb, f"{name} {inner}")


# Choices


def choices_page() -> str:
    about = (
        "What settings choose by name. `edm2core/registry.py` and `edm2core/plan/stages.py` are the tables. "
        "[Evaluation](../explanation/evaluation.md) says what each metric means."
    )
    metrics = (
        (f"`{name}`", facts.words, _least(facts), "higher" if facts.higher_is_better else "lower")
        for name, facts in registry.METRICS.items()
    )
    extractors = (
        (f"`{name}`", each.words, f"{each.dimensions}", f"`{each.weights}_weights:`" if each.weights else "none")
        for name, each in registry.EXTRACTORS.items()
    )
    formats = (
        (f"`{name}`", _shape(each), _count(each.classes), _count(each.train), _count(each.test)) for name, each in registry.FORMATS.items()
    )
    single: dict[str, Mapping[str, Any]] = {
        "network.use": registry.NETWORKS,
        "diffusion.weighting": registry.WEIGHTINGS,
        "training.lr_changes": registry.SCHEDULES,
        "training.optimizer": registry.OPTIMIZERS,
        "training.augment.transforms": registry.AUGMENTATIONS,
        "sample.solver": registry.SOLVERS,
    }
    stages = ((f"`{stage.name}`", stage.words, str(stage.version), stage.does) for stage in STAGES.values())
    return page(
        "Choices by name",
        about,
        "## Metrics",
        "A metric that compares statistics (`fid`, `fd`) needs one image more than its features have dimensions.",
        table(("metric", "in words", "least images", "better"), metrics),
        "## Feature extractors",
        table(("extractor", "in words", "dimensions", "weights"), extractors),
        "## Data formats",
        table(("format", "shape", "classes", "training images", "test images"), formats),
        "## Networks, weightings, schedules, optimizers, augmentation, solvers",
        table(("setting", "choices"), ((f"`{setting}`", ", ".join(f"`{name}`" for name in names)) for setting, names in single.items())),
        "## Stages",
        "The kinds of tasks. A version is raised when a change moves numbers.",
        table(("stage", "in words", "version", "what it does"), stages),
    )


def _least(facts: registry.MetricFacts) -> str:
    dimensions = "dimensions + 1" + " in every class" * facts.by_class
    return dimensions if facts.needs == "statistics" or facts.by_class else f"{facts.least_images:,}"


def _shape(data: registry.DataFormat) -> str:
    return " × ".join(map(str, data.shape)) if data.shape else "as set"


def _count(number: int | None) -> str:
    return "as found" if number is None else f"{number:,}"


# Results

COLUMNS = {
    "dataset": "Data set.",
    "recipe": "Recipe; null for what belongs to the data set alone.",
    "seed": "Training seed.",
    "epoch": "Completed epochs.",
    "ema": "Average that was looked at: `fixed` or a relative width.",
    "draw": "Number of the set of samples, from 0.",
    "n": "Images: samples, or test images of a probe.",
    "protocol": "How the value was measured. Values of other protocols are not comparable.",
    "metric": "Name of the metric, with its extractor.",
    "value": "The value; null if it is not finite.",
    "error": "Standard error from the sampling of images, not from the training's seed.",
    "deviation": "In results: standard deviation between a probe's seeds. In seeds: standard deviation between training seeds.",
    "result": "Address of the result, `stage/key`; its manifest is `results/<stage>/<key>/manifest.json` of the store.",
    "seeds": "Number of training seeds.",
    "mean": "Mean over training seeds.",
    "draws_deviation": "Standard deviation between draws, pooled over the seeds.",
    "one": "First recipe of a pair.",
    "other": "Second recipe of a pair.",
    "difference": "Mean of `other` minus mean of `one`.",
    "low": "Lower end of the interval of the difference, at the level that Holm's correction leaves it. "
    "The interval holds 0 exactly where no difference is shown.",
    "high": "Upper end of that interval.",
    "p_corrected": "p-value of Welch's test after Holm's correction.",
    "smallest": "Smallest difference that these seeds could have shown.",
    "verdict": "In words: whether the difference is shown.",
    "solver": "Solver, and what else is swept of the sampler beside its steps.",
    "steps": "Steps of the sampler.",
    "evaluations": "Network evaluations for an image.",
    "change": "How much more than by the most careful sampler, as a share of its value.",
    "seconds_per_1000": "Seconds that one device takes to draw 1,000 images.",
    "joules_per_1000": "Joules that the GPU uses meanwhile.",
    "device": "The device that was measured.",
    "undominated_by_evaluations": "Whether no other sampler is better with as few evaluations.",
    "undominated_by_seconds": "Whether no other is better in as little time.",
    "undominated_by_joules": "Whether no other is better with as little energy.",
    "careful": "Whether it is the sampler that others are held against.",
    "picked": "Whether it is the cheapest that is good enough.",
}
SECTIONS = {
    "verdicts": "What the report opens with: for each data set, metric and average, who is better, by how much, and whether that is shown.",
    "results": "Every measured value, as in `results.csv`.",
    "rechecks": "The best snapshots, evaluated again, as in `rechecks.csv`.",
    "guidance": "What guidance does: each sweep over guidance with its sentence, and each way to guide against no guidance.",
    "frontiers": "What quality costs: each frontier with its sentence, and its samplers as in `frontiers.csv`.",
    "seeds": "Means over training seeds, as in `seeds.csv`.",
    "differences": "Comparisons of recipes over seeds, as in `differences.csv`.",
    "absent": "Optional metrics that were left out, each with the reason.",
    "diagnostics": "What diagnostics found in each snapshot.",
    "run": "Who made this, when, by which code: the only part that differs between two runs of the same experiment.",
}


def results_page() -> str:
    about = (
        "The files that `edm2 run` and `edm2 report` write beside `report.html`, in `runs/<id>/` of the store. "
        "An empty cell of a CSV file is null in JSON."
    )
    files = {"results.csv` and `rechecks.csv": ROW, "seeds.csv": SPREAD, "differences.csv": DIFFERENCE, "frontiers.csv": FRONTIER}
    parts = [
        part
        for name, columns in files.items()
        for part in (f"## `{name}`", table(("column", "meaning"), ((f"`{column}`", COLUMNS[column]) for column in columns)))
    ]
    json_table = table(("section", "what it holds"), ((f"`{name}`", words) for name, words in SECTIONS.items()))
    return page("Results", about, "## `results.json`", json_table, *parts)


# The store


def store_page() -> str:
    about = (
        "What lies in a store, a folder or a bucket. [Architecture](../architecture.md#the-store) says why it is laid out so. "
        "Only `edm2` writes there."
    )
    addresses = {
        "results/<stage>/<key>/manifest.json": "The record of a result, written last. Where it verifies, the task has succeeded.",
        "results/<stage>/<key>/<attempt>/": "The files of a result.",
        "results/average/<key>/": "Power-function averages that a training stored for mixing others.",
        "runs/<id>/": "A run: its experiment, plan, events, logs, report, results.json and tables.",
        "sources/<digest>, sources/<digest>.tar": "What users brought: a file's bytes, or a folder's files packed. "
        "Data, weights and checkpoints for tasks on a cluster; own code for every task, of local runs too.",
        "code/<digest>.diff": "How a working tree differed from its revision, of results that changed code made.",
        "scratch/": "Training states and finished parts of work under way.",
        "leases/": "Who works on what.",
    }
    manifest = ((f"`{field.name}`", MANIFEST[field.name]) for field in dataclasses.fields(Manifest))
    return page(
        "The store",
        about,
        table(("address", "what it is"), ((f"`{address}`", words) for address, words in addresses.items())),
        "## A manifest",
        table(("field", "meaning"), manifest),
    )


MANIFEST = {
    "stage": "Kind of the task.",
    "version": "Version of the stage's numbers.",
    "key": "Identity of the task: the hash of stage, version, keyed settings and the inputs' keys.",
    "title": "The task in words.",
    "settings": "Its settings.",
    "inputs": "Name of each input, with its address `stage/key`.",
    "input_digests": "Name of each input, with the SHA-256 of its manifest.",
    "attempt": "Folder of the files, beside the manifest.",
    "files": "Path of each file in that folder, with its size in bytes and SHA-256.",
    "metadata": "What people and later tasks read first: values, counts, the epoch.",
    "provenance": "Code version, science, host, devices, seconds, times, packages, and the manifest's own SHA-256.",
}

# Python


class Function(NamedTuple):
    """A function of the library that a notebook may call."""

    module: str
    name: str


LIBRARY = (
    Function("edm2core.snapshots.files", "load"),
    Function("edm2core.diffusion.latents", "latents"),
    Function("edm2core.diffusion.sampler", "draw"),
    Function("edm2core.config", "load_recipe"),
)


def python_page() -> str:
    about = "What a script or a notebook may call. It needs no cluster."
    parts = list[str]()
    if find_spec("edm2"):
        package = importlib.import_module("edm2")
        parts += ["## `import edm2`", inspect.getdoc(package) or ""]
        parts += [part for name in package.__all__ for part in _documented(f"edm2.{name}", getattr(package, name))]
    parts.append("## The library")
    for function in LIBRARY:
        found = getattr(importlib.import_module(function.module), function.name)
        parts += _documented(f"{function.module}.{function.name}", found)
    return page("Python", about, *parts)


def _documented(name: str, thing: Any) -> Iterator[str]:
    """A function or class: its signature and its docstring, and those of a class's public methods."""
    yield f"### `{name}`"
    if inspect.isclass(thing):
        yield inspect.getdoc(thing) or ""
        members = [(key, member) for key, member in vars(thing).items() if not key.startswith("_")]
        rows = [
            (f"`{_signature(key, member)}`", (inspect.getdoc(member) or "").split("\n\n")[0])
            for key, member in members
            if callable(member) or isinstance(member, property)
        ]
        if rows:
            yield table(("member", "what it does"), rows)
    elif callable(thing):
        yield f"```python no-run\n{_signature(name.rpartition('.')[2], thing)}\n```"
        yield inspect.getdoc(thing) or ""


def _signature(name: str, thing: Any) -> str:
    if not callable(thing):
        return name
    text = f"{name}{inspect.signature(thing)}".replace("(self, ", "(").replace("(self)", "()")
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)  # classes without their modules


def write(texts: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(pages(), FOLDER)
