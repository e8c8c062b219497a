"""The table: one line a training and average, its best and last values, what it cost, and what others published."""

import math
from dataclasses import dataclass, field
from statistics import fmean

from edm2core.config import Recipe
from edm2core.plan.manifest import Ref
from edm2core.plan.probe_metrics import is_probe
from edm2core.report.collect import Report, Result
from edm2core.report.protocol import protocol
from edm2core.report.published import Published, beside
from edm2core.report.results import Row, best_of, higher_is_better, label, rank

MOST_NARROW = 3  # metrics side by side with all that is to be said of each value


@dataclass(frozen=True)
class Column:
    """A metric under one protocol, number of images included: values of another protocol never stand in the same column."""

    metric: str
    protocol: str
    n: int | None = None  # images that a value is of

    @property
    def label(self) -> str:
        return label(self.metric)


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
class Table:
    """All lines of one data set."""

    dataset: str
    columns: list[Column]
    lines: list[Line]
    pixels: list[Row]  # the classifier on raw pixels
    leaders: dict[Column, tuple[str, int, str]]  # who holds the best value

    def shared(self, column: Column) -> Cell | None:
        """Any of a column's cells, where all were had in the same way, so that it can be said once; only where there are many columns."""
        cells = [cell for line in self.lines if (cell := line.cells.get(column)) and cell.best]
        same = len({(cell.count, cell.wanted, cell.draws) for cell in cells}) == 1
        return cells[0] if same and len(self.columns) > MOST_NARROW else None

    @property
    def wide(self) -> bool:
        """Whether it has more columns than a page is wide."""
        return len(self.columns) > MOST_NARROW


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
    leaders = {}
    for column in columns:
        bests = {line.who: cell.best[1] for line in lines if (cell := line.cells.get(column)) and cell.best}
        if len(bests) > 1:
            leaders[column] = best_of(column.metric, bests)
    pixels = [row for row in rows if row.metric == "pixel_accuracy" and row.dataset == dataset]
    return Table(dataset, columns, lines, pixels, leaders)


def _datasets(report: Report) -> list[str]:
    return list(dict.fromkeys(r.task.subject.dataset for r in report.results.values() if r.task.subject.recipe))
