"""A metric against the relative width of the average."""

from collections.abc import Iterable
from dataclasses import replace

from edm2core.report.ema_widths import Sweep
from edm2core.report.figures.axes import Part, metric_title, number, of_dataset, only, sentence
from edm2core.report.figures.curves import MEAN, curve, of_seeds, over_seeds, reach
from edm2core.report.figures.figure import Cells, Figure, Reading
from edm2core.report.figures.styles import Styles
from edm2core.report.results import best_of, higher_is_better, label

FIXED = f"{MEAN} && datum.width === null"


def sweep_figures(sweeps: Iterable[Sweep], styles: Styles) -> list[Figure]:
    """One figure for each data set, metric and protocol, with a line for each recipe at its last epoch with several widths."""
    groups: dict[tuple[str, str, str], dict[tuple[str, int], Sweep]] = {}
    for sweep in sorted(sweeps, key=lambda sweep: sweep.epoch):
        groups.setdefault((sweep.dataset, sweep.metric, sweep.protocol), {})[sweep.recipe, sweep.seed] = sweep
    datasets = {dataset for dataset, *_ in groups}
    figures = []
    for index, ((dataset, metric, protocol), trainings) in enumerate(groups.items()):
        title = of_dataset(label(metric), dataset, datasets)
        figures.append(_figure(f"sweep-{index}", title, metric, protocol, list(trainings.values()), styles))
    return figures


def _figure(name: str, title: str, metric: str, protocol: str, sweeps: list[Sweep], styles: Styles) -> Figure:
    recipes = [recipe for recipe in styles.recipes if any(sweep.recipe == recipe for sweep in sweeps)]
    cells = [cell for recipe in recipes for cell in _cells(metric, [sweep for sweep in sweeps if sweep.recipe == recipe])]
    seeds, words = of_seeds(cells)
    y = number("value", metric_title(metric), reach(cells))
    scale, axis = {"zero": False, "nice": False, "padding": 14}, {"title": "relative width σ_rel of the average"}
    x = {"field": "width", "type": "quantitative", "scale": scale, "axis": axis}
    spec = curve(x, y, replace(styles, emas=[]), recipes, "datum.width !== null", seeds=seeds > 1)
    spec["layer"] += [_ring(y), *(_fixed(y) if any(cell["width"] is None for cell in cells) else [])]
    epochs = ", ".join(map(str, sorted({sweep.epoch for sweep in sweeps})))
    caption = f"A ring marks each recipe's best. Values are at epoch {epochs}. {sentence(protocol)}{words}"
    log = () if higher_is_better(metric) or min(reach(cells)) <= 0 else ("y",)
    reading = Reading("width", "σ_rel", ("recipe",))
    return Figure(name, title, caption, cells, spec, styles.marks(recipes), log, reading=reading, has_seeds=seeds > 1)


def _cells(metric: str, sweeps: list[Sweep]) -> Cells:
    """One recipe's means over seeds at every width, each seed where there are several, and its fixed average, which has no width."""
    widths = sorted({width for sweep in sweeps for width in sweep.values})
    values = {width: {sweep.seed: sweep.values[width] for sweep in sweeps if width in sweep.values} for width in widths}
    cells = over_seeds("width", values, recipe=sweeps[0].recipe, epoch=sweeps[0].epoch)
    best = best_of(metric, {cell["width"]: cell["value"] for cell in cells if cell["seed"] is None})
    fixed = {sweep.seed: sweep.fixed for sweep in sweeps if sweep.fixed is not None}
    cells = [{**cell, "best": cell["seed"] is None and cell["width"] == best} for cell in cells]
    return cells + (over_seeds("width", {None: fixed}, recipe=sweeps[0].recipe, epoch=sweeps[0].epoch) if fixed else [])


def _ring(y: Part) -> Part:
    mark = {"type": "point", "filled": False, "size": 300, "strokeWidth": 2, "opacity": 1}
    return {"mark": mark, "transform": only("datum.best"), "encoding": {"y": y}}


def _fixed(y: Part) -> list[Part]:
    """A level line for the fixed average, which has no width of the same kind."""
    level = {"y": y, "x": {"value": 0}, "x2": {"value": "width"}}
    words = {"type": "text", "text": "fixed", "align": "right", "dx": -2, "dy": -5, "fontSize": 11}
    return [
        {"mark": {"type": "rule", "strokeWidth": 1, "opacity": 0.7}, "transform": only(FIXED), "encoding": level},
        {"mark": words, "transform": only(FIXED), "encoding": {"y": y, "x": {"value": "width"}}},
    ]
