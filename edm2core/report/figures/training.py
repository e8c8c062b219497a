"""Loss, learning rate and size of the updates along every training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from edm2core.provenance.science import brief
from edm2core.report.collect import Report
from edm2core.report.figures.axes import epochs, number, only
from edm2core.report.figures.curves import curve, of_seeds, over_seeds, reach
from edm2core.report.figures.figure import Cells, Figure, Reading
from edm2core.report.figures.styles import Styles
from edm2core.report.results import clean

CURVES = {  # title, what stands at the axis, caption
    "loss": (
        "Training loss",
        "↓ training loss · lower is better",
        "Each point is the mean over the steps since the previous point. It contains the learned log-variance, so it may be negative. "
        "A tick marks where training was stopped and continued. A cross marks where another version of the code continued it.",
    ),
    "lr": (
        "Learning rate",
        "learning rate",
        "Each point is the rate of its step. If schedules are equal, the later line is thinner and lies on the earlier one.",
    ),
    "relative_update": (
        "Relative update size",
        "‖Δw‖ / ‖w‖",
        "Each point is ‖Δw‖ / ‖w‖ of all learned maps together, in its step.",
    ),
}
POINTS = 300  # most points of a line: what a drawing can show
Curve = tuple[str, int, Sequence[Mapping[str, Any]]]  # recipe, seed, and the lines of the training's curve.jsonl


def training_figures(report: Report, styles: Styles) -> list[Figure]:
    """The figures of every training whose curve is in the store."""
    return curve_figures(training_curves(report), styles)


def training_curves(report: Report) -> list[Curve]:
    """The curves in the store."""
    subjects = {ref: report.results[ref].task.subject for ref in report.curves}
    return [(subjects[ref].recipe, subjects[ref].seed, lines) for ref, lines in report.curves.items() if lines]


def curve_figures(curves: Sequence[Curve], styles: Styles) -> list[Figure]:
    """Loss, learning rate and size of the updates. A quantity that no curve has gets no figure."""
    figures = (_figure(name, curves, styles) for name in CURVES)
    return [figure for figure in figures if figure is not None]


def _figure(name: str, curves: Sequence[Curve], styles: Styles) -> Figure | None:
    points = {(recipe, seed): _points(name, lines) for recipe, seed, lines in curves}
    last = max((epoch for found in points.values() for epoch, _ in found), default=0.0)
    cells: Cells = []
    recipes = [recipe for recipe in styles.recipes if any(who[0] == recipe and found for who, found in points.items())]
    for recipe in recipes:
        cells += _cells(recipe, {seed: found for (own, seed), found in points.items() if own == recipe and found}, last)
    if not cells:
        return None
    (seeds, words), (title, axis, caption) = of_seeds(cells), CURVES[name]
    log = ("x",) if name == "loss" or min(reach(cells)) <= 0 else ("x", "y")
    y = number("value", axis, reach(cells))
    plain = replace(styles, emas=[])  # a training has no average yet
    spec = curve(epochs([0, last], most=0), y, plain, recipes, "!datum.restart", seeds=seeds > 1, points=False)
    if name == "lr" and len(recipes) > 1:  # schedules of different recipes often coincide
        del spec["layer"][-1]["mark"]["strokeWidth"]
        spec["layer"][-1]["encoding"]["strokeWidth"] = {"field": "breadth", "type": "quantitative", "scale": None, "legend": None}
        cells = [{**cell, "breadth": 2 + 3 * (len(recipes) - 1 - recipes.index(cell["recipe"]))} for cell in cells]
    if name == "loss" and (marks := _restarts(curves, cells)):
        cells += marks
        spec["layer"].append(_restart_layer(y))
    if max(len(lines) for _, _, lines in curves) > POINTS:
        caption += f" Each point is the mean over a {POINTS}th of the training."
    reading = Reading("epoch", "epoch", ("recipe",))
    return Figure(f"training-{name}", title, caption + words, cells, spec, styles.marks(recipes), log, reading=reading, has_seeds=seeds > 1)


def _points(name: str, lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    points = [(line["epoch"], clean(line.get(name))) for line in lines if "epoch" in line and name in line]
    return [(epoch, value) for epoch, value in points if value is not None]


def _cells(recipe: str, by_seed: Mapping[int, list[tuple[float, float]]], last: float) -> Cells:
    """A recipe's means over seeds and its single seeds, in equal parts of the training where there are more points than are drawn."""
    width = last / POINTS if max(map(len, by_seed.values())) > POINTS else 0.0
    parts: dict[float, dict[int, list[tuple[float, float]]]] = {}
    for seed, points in by_seed.items():
        for epoch, value in points:
            part = math.ceil(epoch / width - 1e-9) if width else epoch
            parts.setdefault(part, {}).setdefault(seed, []).append((epoch, value))
    ends = {part: max(epoch for points in own.values() for epoch, _ in points) for part, own in parts.items()}
    means = {ends[part]: {seed: fmean(value for _, value in points) for seed, points in parts[part].items()} for part in sorted(parts)}
    return over_seeds("epoch", means, recipe=recipe)


def _restarts(curves: Sequence[Curve], cells: Cells) -> Cells:
    """Where trainings were continued, at the height of their recipe's line."""
    marks = []
    for recipe, _, lines in curves:
        last = next((line for line in reversed(lines) if "epoch" in line), {})
        per_step = last["epoch"] / last["step"] if last.get("step") else 0.0
        own = [cell for cell in cells if cell["recipe"] == recipe and cell["seed"] is None]
        for line in (line for line in lines if line.get("restart") and own):
            epoch = line["step"] * per_step
            near = min(own, key=lambda cell: abs(cell["epoch"] - epoch))
            words = f"under other science ({brief(line['science'])})" if "science" in line else "continued"
            marks.append({**near, "epoch": epoch, "restart": words})
    return list({(mark["recipe"], mark["epoch"], mark["restart"]): mark for mark in marks}.values())


def _restart_layer(y: dict[str, Any]) -> dict[str, Any]:
    shape = {"condition": {"test": "datum.restart === 'continued'", "value": "stroke"}, "value": "cross"}
    mark = {"type": "point", "size": 120, "angle": 90, "strokeWidth": 2, "filled": False}
    told = [{"field": "restart", "title": "training"}, {"field": "epoch", "title": "at epoch", "format": ".4~g"}]
    return {"mark": mark, "transform": only("isValid(datum.restart)"), "encoding": {"y": y, "shape": shape, "tooltip": told}}
