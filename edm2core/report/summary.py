"""The main table: one row a recipe and average over its seeds, its last and best values, what it cost, and what others published."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev

from edm2core.config import Recipe
from edm2core.plan.manifest import Ref
from edm2core.plan.probe_metrics import is_probe
from edm2core.report.collect import Report, Result
from edm2core.report.digits import places
from edm2core.report.protocol import protocol
from edm2core.report.published import Published, beside
from edm2core.report.results import Row, best_of, better, higher_is_better, label, rank
from edm2core.report.seeds import Measure

MOST = 5  # metrics side by side; more go into tables of their own


@dataclass(frozen=True)
class Column:
    """A metric under one protocol, number of images included: values of another protocol never stand in the same column."""

    metric: str
    protocol: str
    n: int | None = None  # images that a value is of

    @property
    def label(self) -> str:
        return label(self.metric)

    @property
    def direction(self) -> str:
        return f"{better(self.metric)} is better"


@dataclass(frozen=True)
class Cell:
    """One metric's values along a training; `best` and `last` are (epoch, value)."""

    best: tuple[int, float] | None
    last: tuple[int, float] | None  # at the last epoch of the plan
    count: int  # epochs with a value: the k of best-of-k
    wanted: int  # epochs that the plan asks for
    draws: int  # independent sample sets behind the best value, which is their mean
    state: str  # of what is missing: failed, missing, …
    published: Published | None
    error: float | None = None  # standard error of `best` from the sampling of images alone
    deviation: float | None = None  # of `best` between the probe's seeds
    least: float | None = None  # smallest of the draws at that epoch; none: one draw, or higher is better
    best_from: tuple[Ref, ...] = ()  # the results that `best` is of, one a draw
    last_from: tuple[Ref, ...] = ()
    least_from: tuple[Ref, ...] = ()


@dataclass
class Line:
    """One training seen through one average."""

    dataset: str
    recipe: str
    seed: int
    ema: str
    cells: dict[Column, Cell] = field(default_factory=dict)
    parameters: int | None = None
    images: int | None = None  # seen in training
    seconds: float | None = None  # of training, over all restarts
    processes: int = 1
    device: str = ""
    epochs: int | None = None  # finished

    @property
    def who(self) -> tuple[str, int, str]:
        return self.recipe, self.seed, self.ema


@dataclass(frozen=True)
class OverSeeds:
    """A value of a recipe: the mean over its training seeds. `epochs` are those that the seeds' values are of."""

    mean: float
    deviation: float | None  # standard deviation between seeds; none: one seed
    seeds: int
    epochs: tuple[int, ...]


@dataclass(frozen=True)
class RecipeCell:
    """One metric of a recipe: at the last epoch of the plan, and each training's best, over its seeds."""

    last: OverSeeds | None
    best: OverSeeds | None
    cells: tuple[Cell, ...]  # of each seed that has a value or should have

    @property
    def state(self) -> str:
        """What became of the value at the last epoch where no seed has one."""
        return next((cell.state for cell in self.cells if cell.state), "missing")

    @property
    def counts(self) -> tuple[int, int, int]:
        """Of the first training that has a value: epochs with a value, epochs wanted, draws."""
        return next(((cell.count, cell.wanted, cell.draws) for cell in self.cells if cell.best), (0, 0, 0))


@dataclass(frozen=True)
class RecipeLine:
    """One recipe seen through one average: its trainings, and their values together."""

    recipe: str
    ema: str
    trainings: list[Line]
    cells: dict[Column, RecipeCell]

    @property
    def first(self) -> Line:
        return self.trainings[0]

    @property
    def seconds(self) -> float | None:
        """Device time of one training, the mean over its seeds."""
        known = [line.seconds * line.processes for line in self.trainings if line.seconds is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class Table:
    """All lines of one data set."""

    dataset: str
    columns: list[Column]
    lines: list[Line]
    pixels: list[Row]  # the classifier on raw pixels

    @cached_property  # every cell of the table asks
    def recipes(self) -> list[RecipeLine]:
        """One line a recipe and average, in the order of the lines."""
        groups: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines:
            groups.setdefault((line.recipe, line.ema), []).append(line)
        return [RecipeLine(*who, of, {c: _over_seeds(c, of) for c in self.columns if _has(of, c)}) for who, of in groups.items()]

    @property
    def groups(self) -> list[list[Column]]:
        """The columns in tables of at most `MOST`; the first metrics of samples and of probes come first."""
        probe = next((column for column in self.columns if is_probe(column.metric)), None)
        samples = [column for column in self.columns if column != probe]
        first = ([*samples[:1], probe, *samples[1:]] if probe else samples)[:MOST]
        rest = [column for column in self.columns if column not in first]
        return [first, *(rest[start : start + MOST] for start in range(0, len(rest), MOST))]

    def usual(self, column: Column) -> tuple[int, int, int]:
        """Epochs with a value, epochs wanted and draws of most of a column's cells: said once, above them."""
        counts = [(cell.count, cell.wanted, cell.draws) for line in self.lines if (cell := line.cells.get(column)) and cell.best]
        return max(counts, key=counts.count, default=(0, 0, 0))

    def places(self, column: Column) -> int:
        """Decimals of a column: as many as the deviation between seeds justifies; of one seed, the error of sampling."""
        cells = [line.cells[column] for line in self.recipes if column in line.cells]
        values = [value for cell in cells for value in (cell.last, cell.best) if value]
        deviations, errors = (value.deviation for value in values), (each.error for cell in cells for each in cell.cells)
        return places((value.mean for value in values), deviations, errors)

    def last(self, column: Column) -> int | None:
        """The last epoch of a column's values, where that is one for all."""
        epochs = {cell.last.epochs for line in self.recipes if (cell := line.cells.get(column)) and cell.last}
        return next(iter(epochs))[0] if len(epochs) == 1 and len(next(iter(epochs))) == 1 else None

    def measure(self, column: Column, ema: str) -> Measure:
        """What a column's values with one average are compared within."""
        return Measure(self.dataset, column.metric, column.protocol, ema, column.n)


def tables(report: Report, rows: dict[Row, Result]) -> list[Table]:
    """One table a data set, in the plan's order."""
    lines: dict[tuple[str, int, str], Line] = {}
    for result in report.results.values():
        subject = result.task.subject
        if not subject.recipe:
            continue
        who = (*subject.training, subject.ema)
        lines.setdefault(who, Line(subject.dataset, *who))
    looked_at = {who[:2] for who in lines if who[2]}
    lines = {who: line for who, line in lines.items() if who[2] or who[:2] not in looked_at}
    for line in lines.values():
        _cost(report, line)
        for column, found in _columns(rows, line).items():
            line.cells[column] = _cell(report, line, column, found, report.plan.recipes.get(line.recipe))
    for line in lines.values():
        _mark_undone(report, line, {c for other in lines.values() if other.dataset == line.dataset for c in other.cells})
    return [_table(name, [line for line in lines.values() if line.dataset == name], rows) for name in _datasets(report)]


def _has(lines: list[Line], column: Column) -> bool:
    return any(column in line.cells for line in lines)


def _over_seeds(column: Column, lines: list[Line]) -> RecipeCell:
    cells = tuple(line.cells[column] for line in lines if column in line.cells)
    return RecipeCell(_together([cell.last for cell in cells]), _together([cell.best for cell in cells]), cells)


def _together(found: list[tuple[int, float] | None]) -> OverSeeds | None:
    known = [point for point in found if point]
    if not known:
        return None
    values = [value for _, value in known]
    deviation = stdev(values) if len(values) > 1 else None
    return OverSeeds(fmean(values), deviation, len(values), tuple(sorted({epoch for epoch, _ in known})))


def _mark_undone(report: Report, line: Line, columns: set[Column]) -> None:
    """Where others have a value and this line has none although the plan wants it, say what became of it."""
    for column in columns - line.cells.keys():
        undone = [state for epoch in _epochs(report, line) if (state := _state(report, line, epoch, column))]
        if undone and not any(own.metric == column.metric for own in line.cells):
            line.cells[column] = Cell(None, None, 0, len(undone), 0, "failed" if "failed" in undone else undone[-1], None)


def _state(report: Report, line: Line, epoch: int, column: Column) -> str:
    """Why a value is not there: the state of the tasks that should have made it."""
    stages = ("probe",) if is_probe(column.metric) else ("sample", "metrics")
    undone = [r for r in report.undone if r.task.stage in stages and r.task.subject.epoch == epoch]
    states = [r.outcome.state for r in undone if (*r.task.subject.training, r.task.subject.ema) == line.who]
    return "failed" if "failed" in states else states[-1] if states else ""


def _epochs(report: Report, line: Line) -> list[int]:
    subjects = [result.task.subject for result in report.results.values()]
    return sorted({s.epoch for s in subjects if s.training == (line.recipe, line.seed)})


def _columns(rows: dict[Row, Result], line: Line) -> dict[Column, dict[Row, Result]]:
    columns: dict[Column, dict[Row, Result]] = {}
    for row, result in rows.items():
        if (row.recipe, row.seed, row.ema) == line.who and row.value is not None and row.epoch is not None:
            columns.setdefault(Column(row.metric, row.protocol, row.n), {})[row] = result
    return columns


def _cell(report: Report, line: Line, column: Column, found: dict[Row, Result], recipe: Recipe | None) -> Cell:
    values: dict[int, list[float]] = {}
    errors: dict[int, list[float | None]] = {}
    for row in found:
        values.setdefault(row.epoch or 0, []).append(row.value or 0.0)
        errors.setdefault(row.epoch or 0, []).append(row.error)
    means = {epoch: fmean(v) for epoch, v in sorted(values.items())}
    best = best_of(column.metric, means)
    epochs = _epochs(report, line)
    last = epochs[-1]
    return Cell(
        (best, means[best]),
        (last, means[last]) if last in means else None,
        len(means),
        len(epochs),
        len(values[best]),
        "" if last in means else _state(report, line, last, column),
        beside(recipe, column.metric, best, protocol(report, next(iter(found.values())), column.metric)) if recipe else None,
        _mean_error(errors[best]),
        next((row.deviation for row in found if row.epoch == best), None),
        None if higher_is_better(column.metric) or len(values[best]) < 2 else min(values[best]),
        _results_at(found, best),
        _results_at(found, last),
        tuple(result.task.ref for row, result in found.items() if row.epoch == best and row.value == min(values[best])),
    )


def _results_at(found: dict[Row, Result], epoch: int) -> tuple[Ref, ...]:
    return tuple(result.task.ref for row, result in found.items() if row.epoch == epoch)


def _mean_error(errors: list[float | None]) -> float | None:
    """The standard error of the mean of independent draws, each with its own."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(known) if len(known) == len(errors) else None


def least_of_draws(table: Table) -> dict[tuple[Column, int], list[tuple[Line, Cell]]]:
    """The smallest of k draws, by column and k: such values stand only beside others of the same k."""
    found: dict[tuple[Column, int], list[tuple[Line, Cell]]] = {}
    for line in table.lines:
        for column, cell in line.cells.items():
            if cell.least is not None:
                found.setdefault((column, cell.draws), []).append((line, cell))
    return found


def _cost(report: Report, line: Line) -> None:
    own = [r for r in report.results.values() if r.task.subject.training == (line.recipe, line.seed)]
    snapshots = {s.task.ref: s for r in own if (s := report.snapshot(r)) and s.manifest}  # which other recipes of a sweep may share
    done = sorted(snapshots.values(), key=lambda r: r.task.subject.epoch)
    if not done:
        return
    last = done[-1]
    line.parameters = last.metadata.get("parameters")
    line.epochs = last.task.subject.epoch
    line.images = last.metadata.get("images_seen")
    line.seconds = last.provenance.get("seconds")
    line.processes = last.provenance.get("world_size", 1)
    line.device = str(last.provenance.get("device", ""))


def _table(dataset: str, lines: list[Line], rows: dict[Row, Result]) -> Table:
    columns = sorted({column for line in lines for column in line.cells}, key=lambda c: (rank(c.metric), c.protocol))
    pixels = [row for row in rows if row.metric == "pixel_accuracy" and row.dataset == dataset]
    return Table(dataset, columns, lines, pixels)


def _datasets(report: Report) -> list[str]:
    return list(dict.fromkeys(r.task.subject.dataset for r in report.results.values() if r.task.subject.recipe))
