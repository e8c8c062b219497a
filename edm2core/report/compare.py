"""Experiments held against each other: what differs in what was asked, and what came out of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

from edm2core.config import Recipe
from edm2core.config.describe import DESCRIPTIONS, flattened, in_words
from edm2core.own_code.source import brief_content
from edm2core.report.collect import Report, Result
from edm2core.report.figures import Figure, Styles, curve_figures, training_curves
from edm2core.report.frontier import compared_here, main_tables
from edm2core.report.frontier_words import Answer, answers_of
from edm2core.report.guidance import GuidanceSweep, guidance_sweeps
from edm2core.report.results import Row, distinct, rank, rows
from edm2core.report.sciences import sciences
from edm2core.report.seeds import Difference, Measure, SeedTable, Spread, measure_of, seed_tables, spreads
from edm2core.report.statistics import judge, welch
from edm2core.report.summary import Column, Line, Table
from edm2core.words import NOTHING

SECTIONS = ("data", "start", "network", "diffusion", "training", "sample", "reference", "probe")
DRAWN = ("sample", "snapshot", "ema")  # stages of inputs that are what is compared, not what it is held against


@dataclass(frozen=True)
class Side:
    """One of the experiments: a mark by which the page calls it, its address, and all that it found."""

    mark: str
    address: str
    report: Report

    def called(self, recipe: str) -> str:
        return f"{self.mark} · {recipe}"


class Setting(NamedTuple):
    """A setting that is not the same everywhere: its name in YAML, what it is, and its value in each experiment by mark."""

    name: str
    what: str
    values: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """All that a page about several experiments shows. Recipes in its rows and tables are called by their experiment's mark too."""

    sides: list[Side]
    settings: list[Setting]
    rows: dict[Row, tuple[Side, Result]]
    curves: list[Row]  # those that stand along the training: no sampler of a frontier, and no guidance of a sweep
    answers: list[Answer]  # of all frontiers at their last epochs
    guided: list[GuidanceSweep]
    tables: list[Table]
    by_seeds: dict[str, SeedTable]
    styles: Styles
    training: list[Figure]


def compare(sides: Sequence[Side]) -> Comparison:
    """Hold experiments against each other; values share a column only if protocol, n, data and reference are the same."""
    found, columns = _rows(sides)
    styles = _styles(sides)
    several = len({row.seed for row in found if row.seed is not None}) > 1
    return Comparison(
        list(sides),
        [*_asked(sides), *_settings(sides)],
        found,
        [row for side in sides for row in _curves(side, found)],
        [answer for side in sides for answer in _answers(side)],
        [replace(sweep, recipe=side.called(sweep.recipe)) for side in sides for sweep in guidance_sweeps(side.report)],
        _tables(sides, columns),
        _by_seeds(sides, found) if several else {},
        styles,
        _training(sides, styles),
    )


def _rows(sides: Sequence[Side]) -> tuple[dict[Row, tuple[Side, Result]], dict[tuple[str, Column], Column]]:
    """Every value, under a protocol that says so where experiments mean different data or references by the same words; and which
    column of which experiment that makes of it."""
    own = {side.mark: rows(side.report) for side in sides}
    bases: dict[Column, dict[Any, list[str]]] = {}  # by what a value was held against, the marks of those who did
    for side in sides:
        for row, result in own[side.mark].items():
            marks = bases.setdefault(_column(row), {}).setdefault((row.dataset, basis(result)), [])
            if side.mark not in marks:
                marks.append(side.mark)
    found: dict[Row, tuple[Side, Result]] = {}
    columns: dict[tuple[str, Column], Column] = {}
    for side in sides:
        for row, result in own[side.mark].items():
            held = {against: marks for (dataset, against), marks in bases[_column(row)].items() if dataset == row.dataset}
            whose = f", data and reference of {' and '.join(held[basis(result)])}" if len(held) > 1 else ""
            words = f"{row.protocol}{whose}"
            columns[side.mark, _column(row)] = replace(_column(row), protocol=words)
            found[replace(row, recipe=side.called(row.recipe) if row.recipe else side.mark, protocol=words)] = (side, result)
    return found, columns


def _curves(side: Side, found: Mapping[Row, tuple[Side, Result]]) -> Iterable[Row]:
    here = {result.task.ref for result in compared_here(side.report, rows(side.report)).values()}
    return [row for row, (whose, result) in found.items() if whose is side and result.task.ref in here]


def _answers(side: Side) -> list[Answer]:
    """What an experiment's frontiers say at their last epochs, each called by its mark."""
    own = [answer for answer in answers_of(side.report) if answer.latest]
    return [replace(answer, frontier=replace(answer.frontier, recipe=side.called(answer.frontier.recipe))) for answer in own]


def _column(row: Row) -> Column:
    return Column(row.metric, row.protocol, row.n)


def basis(result: Result) -> Any:
    """What a value was measured with and against: the stage's version, and the inputs that are not what is compared."""
    return result.task.version, tuple(sorted(str(ref) for ref in result.task.inputs.values() if ref.stage not in DRAWN))


def _styles(sides: Sequence[Side]) -> Styles:
    own = [Styles.of(side.report) for side in sides]
    called = [side.called(recipe) for side, styles in zip(sides, own, strict=True) for recipe in styles.recipes]
    emas = dict.fromkeys(ema for styles in own for ema in styles.emas)
    return Styles(called, sorted({seed for styles in own for seed in styles.seeds}), list(emas))


def _tables(sides: Sequence[Side], columns: Mapping[tuple[str, Column], Column]) -> list[Table]:
    """One table a data set, with the lines of all experiments."""
    by_dataset: dict[str, list[Line]] = {}
    pixels: dict[str, list[Row]] = {}
    for side in sides:
        for table in main_tables(side.report, rows(side.report)):
            pixels.setdefault(table.dataset, []).extend(table.pixels)
            for line in table.lines:
                cells = {columns.get((side.mark, column), column): cell for column, cell in line.cells.items()}
                by_dataset.setdefault(table.dataset, []).append(replace(line, recipe=side.called(line.recipe), cells=cells))
    return [_table(dataset, lines, pixels[dataset]) for dataset, lines in by_dataset.items()]


def _table(dataset: str, lines: list[Line], pixels: list[Row]) -> Table:
    columns = sorted({c for line in lines for c in line.cells}, key=lambda c: (rank(c.metric), c.protocol))
    same = len({row.value for row in pixels}) == 1
    return Table(dataset, columns, lines, pixels if same else [])


def _training(sides: Sequence[Side], styles: Styles) -> list[Figure]:
    """The experiments' training curves over each other."""
    return curve_figures([curve for side in sides for curve in training_curves(_called(side))], styles)


def _called(side: Side) -> Report:
    """The report with its recipes called as on the page."""

    def renamed(result: Result) -> Result:
        subject = result.task.subject
        if not subject.recipe:
            return result
        return replace(result, task=replace(result.task, subject=replace(subject, recipe=side.called(subject.recipe))))

    return replace(side.report, results={ref: renamed(result) for ref, result in side.report.results.items()})


def _by_seeds(sides: Sequence[Side], found: Mapping[Row, tuple[Side, Result]]) -> dict[str, SeedTable]:
    """Means over seeds of all, and the differences between experiments: of each recipe that two share, else of every pair."""
    results: dict[tuple[Measure, str, int], set[Any]] = {}
    for row, (_, result) in found.items():
        if row.recipe and row.epoch is not None and result.manifest:
            who = (measure_of(row), row.recipe, row.epoch)
            results.setdefault(who, set()).add((result.task.ref, result.manifest.attempt))
    pairs = set(_pairs(sides))

    def differences(table: SeedTable) -> list[Difference]:
        held = [
            (one, other)
            for epoch in table.epochs
            for one, other in combinations([line[epoch] for line in table.lines.values() if epoch in line], 2)
            if (one.recipe, other.recipe) in pairs and _came_from(results, one) != _came_from(results, other)
        ]
        tests = [welch(one.values, other.values) for one, other in held]
        judgements = iter(judge([test for test in tests if test]))
        return [
            Difference(one.measure, one.epoch, one, other, next(judgements) if test else None)
            for (one, other), test in zip(held, tests, strict=True)
        ]

    known = seed_tables(spreads(row for row in found if row.recipe in {who[1] for who in results}))
    return {title: replace(table, differences=differences(table)) for title, table in known.items()}


def _came_from(results: Mapping[tuple[Measure, str, int], set[Any]], spread: Spread) -> set[Any]:
    return results.get((spread.measure, spread.recipe, spread.epoch), set())


def _pairs(sides: Sequence[Side]) -> Iterable[tuple[str, str]]:
    for one, other in combinations(sides, 2):
        first, second = Styles.of(one.report).recipes, Styles.of(other.report).recipes
        shared = [(recipe, recipe) for recipe in first if recipe in second]
        for mine, theirs in shared or [(mine, theirs) for mine in first for theirs in second]:
            yield one.called(mine), other.called(theirs)


def _asked(sides: Sequence[Side]) -> list[Setting]:
    """What else differs: of what, with which seeds, at which epochs, by which code."""
    facts: dict[str, dict[str, str]] = {}
    for side in sides:
        results = list(side.report.results.values())
        done = [result for result in results if result.manifest]
        values: dict[str, list[Any]] = {
            "recipes": Styles.of(side.report).recipes,
            "seeds": Styles.of(side.report).seeds,
            "epochs": sorted({r.task.subject.epoch for r in results if r.task.subject.recipe}),
            "metrics": sorted({row.metric for row in rows(side.report)}),
            "code version": distinct(done, "code_version"),
            **_science(side.report),
            **_own_code(side.report),
            "device": distinct(done, "device"),
            "torch": sorted({str(v) for r in done if (v := (r.provenance.get("packages") or {}).get("torch"))}),
        }
        for name, value in values.items():
            facts.setdefault(name, {})[side.mark] = ", ".join(map(str, value)) or NOTHING
    return [Setting(name, name, values) for name, values in facts.items() if len(set(values.values()) - {NOTHING}) > 1]


def _science(report: Report) -> dict[str, list[str]]:
    """The sciences of each stage, by what a comparison calls that: a stage of the same ones does not differ."""
    found: dict[str, list[str]] = {}
    for one in sciences(report):
        known = found.setdefault(f"science of {one.stage}", [])
        if one.science not in known:
            known.append(one.science)
    return {name: sorted(known) for name, known in found.items()}


def _own_code(report: Report) -> dict[str, list[str]]:
    """The content of the own code that the tasks run, by what a comparison calls that, a line a package."""
    contents: dict[str, set[str]] = {}
    for result in report.results.values():
        for package, content in result.task.code.items():
            contents.setdefault(f"own code {package}", set()).add(brief_content(content))
    return {name: sorted(of_package) for name, of_package in contents.items()}


def _settings(sides: Sequence[Side]) -> list[Setting]:
    """The recipes' settings that differ: in a recipe that several have, and between experiments that share none."""
    own = {side.mark: {name: _flat(recipe) for name, recipe in side.report.plan.recipes.items()} for side in sides}
    names = dict.fromkeys(name for found in own.values() for values in found.values() for name in values)
    differing = [name for name in names if any(_differ(own[a], own[b], name) for a, b in combinations(own, 2))]
    return [Setting(name, DESCRIPTIONS.get(name, name), {mark: _in_each(name, found) for mark, found in own.items()}) for name in differing]


def _differ(one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    shared = one.keys() & other.keys()
    if shared:
        return any(one[recipe].get(name) != other[recipe].get(name) for recipe in shared)
    return {str(values.get(name)) for values in one.values()} != {str(values.get(name)) for values in other.values()}


def _in_each(name: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """A setting's value, recipe by recipe where they differ within the experiment."""
    words = {recipe: in_words(name, values.get(name)) for recipe, values in found.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{recipe}: {value}" for recipe, value in words.items()) or NOTHING


def _flat(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe that decide what comes out, by their name in YAML."""
    return {
        name: value for name, (value, keyed) in flattened(recipe).items() if keyed and name.partition(".")[0] in SECTIONS and "." in name
    }
