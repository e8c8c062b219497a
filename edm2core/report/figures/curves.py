"""Metrics along the training: a mean and a band over seeds, with the error that comes from sampling."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from edm2core.report.figures.axes import Part, epochs, metric_title, number, of_dataset, only, sentence
from edm2core.report.figures.figure import Cells, Figure, Reading
from edm2core.report.figures.styles import Styles
from edm2core.report.results import Row, higher_is_better, label, rank

POINT = {"type": "point", "filled": True, "size": 46, "opacity": 1}
MEAN = "datum.seed === null"  # of a row, as a test in Vega's language
Line = tuple[str, str]  # recipe, average
Values = dict[Line, dict[int, dict[int, list[Row]]]]  # by line, epoch and seed: a row for each draw


def metric_figures(rows: Iterable[Row], styles: Styles) -> list[Figure]:
    """One figure for each data set, metric, protocol and number of images, with a line for each recipe and average."""
    groups: dict[tuple[str, str, str, int | None], Values] = {}
    for row in rows:
        if row.recipe is not None and row.epoch is not None and row.seed is not None and row.value is not None:
            lines = groups.setdefault((row.dataset, row.metric, row.protocol, row.n), {})
            lines.setdefault((row.recipe, row.ema or ""), {}).setdefault(row.epoch, {}).setdefault(row.seed, []).append(row)
    datasets = {dataset for dataset, *_ in groups}
    figures = []
    for index, ((dataset, metric, protocol, _), lines) in enumerate(sorted(groups.items(), key=lambda g: (rank(g[0][1]), str(g[0])))):
        title = of_dataset(label(metric), dataset, datasets)
        figures.append(metric_figure(f"metric-{index}", title, metric, protocol, lines, styles))
    return figures


def metric_figure(name: str, title: str, metric: str, protocol: str, lines: Values, styles: Styles) -> Figure:
    """One metric under one protocol."""
    cells = [cell for line, by_epoch in lines.items() for cell in _cells(line, by_epoch)]
    recipes, emas = (list(dict.fromkeys(line[part] for line in lines)) for part in (0, 1))
    y = number("value", metric_title(metric), reach(cells))
    seeds, words = of_seeds(cells)
    if any("error" in cell for cell in cells):
        words += " Bars are one standard error of the sampling of images."
    return Figure(
        name,
        title,
        f"{words} {sentence(protocol)}".strip(),
        cells,
        curve(epochs(cell["epoch"] for cell in cells), y, styles, recipes, seeds=seeds > 1),
        legend=styles.marks(recipes, [ema for ema in emas if ema]),
        log=("x",) if higher_is_better(metric) or min(reach(cells)) <= 0 else ("x", "y"),
        reading=Reading("epoch", "epoch", ("recipe", "ema") if len(styles.emas) > 1 else ("recipe",)),
        has_seeds=seeds > 1,
    )


def curve(x: Part, y: Part, styles: Styles, recipes: Sequence[str], of: str = "true", *, seeds: bool, points: bool = True) -> Part:
    """Lines of the rows that the test `of` passes, with their bands and bars; single seeds where the parameter `seeds` is true.

    Dashes tell averages apart, where the experiment of these styles has several.
    """
    thin, line = ({"type": "line", "strokeWidth": width, "opacity": opacity} for width, opacity in ((1, 0.55), (2, 1)))
    detail = {"detail": {"field": "seed", "type": "nominal"}}
    mean = f"{MEAN} && {of}"
    layers: list[Part] = []
    if seeds:
        layers.append(between(y, "low", mean, {"type": "area", "opacity": 0.16}))
        layers.append({"mark": thin, "transform": only(f"seeds && datum.seed !== null && {of}"), "encoding": {"y": y, **detail}})
    layers.append({"mark": line, "transform": only(mean), "encoding": {"y": y}})
    if points:
        layers.append(between(y, "error_low", mean, {"type": "rule", "strokeWidth": 1.25}))
        layers.append({"mark": POINT, "transform": only(mean), "encoding": {"y": y, "shape": styles.shape(list(recipes))}})
    for layer in layers if len(styles.emas) > 1 else []:
        kind = layer["mark"]["type"]
        dashed = {"area": {"detail": {"field": "ema", "type": "nominal"}}, "line": {"strokeDash": styles.dash()}}
        layer["encoding"] |= dashed.get(kind, {})
    shared: Part = {"x": x, "color": styles.color(list(recipes))}
    return {"params": [{"name": "seeds", "value": False}], "encoding": shared, "layer": layers}


def between(y: Part, low: str, of: str, mark: Part) -> Part:
    """The range from a column to its counterpart, where both are known: a band or a bar."""
    encoding = {"y": {**y, "field": low}, "y2": {"field": low.replace("low", "high")}}
    return {"mark": mark, "transform": only(f"{of} && isValid(datum.{low})"), "encoding": encoding}


def over_seeds(column: str, values: Mapping[Any, Mapping[int, float | None]], **who: Any) -> Cells:
    """At each value of a column the mean over training seeds, whose `seed` is empty; then each seed, where there are several."""
    several = len({seed for by_seed in values.values() for seed in by_seed}) > 1
    means, singles = [], []
    for at, by_seed in values.items():
        known = [value for value in by_seed.values() if value is not None]
        mean, spread = fmean(known) if known else None, stdev(known) if len(known) > 1 else None
        around = {} if mean is None or spread is None else {"low": mean - spread, "high": mean + spread}
        there = {**who, column: at}
        means.append({**there, "seed": None, "seeds": len(known), "value": mean, "deviation": spread, **around})
        singles += [{**there, "seed": seed, "seeds": 1, "value": value} for seed, value in by_seed.items()]
    return means + (singles if several else [])


def reach(cells: Cells) -> list[float]:
    """Every height that is drawn."""
    names = ("value", "low", "high", "error_low", "error_high")
    return [cell[name] for cell in cells for name in names if cell.get(name) is not None]


def of_seeds(cells: Cells) -> tuple[int, str]:
    """How many training seeds the means are of, and that in words."""
    seeds = max((cell["seeds"] for cell in cells), default=0)
    return seeds, f" Mean over {seeds} training seeds; the band is one standard deviation between them." if seeds > 1 else ""


def _cells(line: Line, by_epoch: Mapping[int, Mapping[int, list[Row]]]) -> Cells:
    """A line's means over seeds and its single seeds, each with its standard error from sampling where that is known."""
    found = {epoch: {seed: _mean(draws) for seed, draws in sorted(by_epoch[epoch].items())} for epoch in sorted(by_epoch)}
    values = {epoch: {seed: value for seed, (value, _) in by_seed.items()} for epoch, by_seed in found.items()}
    cells = over_seeds("epoch", values, recipe=line[0], ema=line[1])
    for cell in cells:
        own = found[cell["epoch"]]
        errors = [error for seed, (_, error) in own.items() if cell["seed"] in (None, seed)]
        known = [error for error in errors if error is not None]
        if known and len(known) == len(errors):
            error = math.hypot(*known) / len(known)
            cell |= {"error": error, "error_low": cell["value"] - error, "error_high": cell["value"] + error}
    return cells


def _mean(draws: list[Row]) -> tuple[float, float | None]:
    """The mean of a training's draws, and its standard error from sampling."""
    errors = [row.error for row in draws if row.error is not None]
    error = math.hypot(*errors) / len(errors) if errors and len(errors) == len(draws) else None
    return fmean(row.value for row in draws if row.value is not None), error
