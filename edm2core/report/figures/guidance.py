"""What guidance does: a metric against the weight, and quality against diversity, one curve for each guide and interval."""

from collections.abc import Sequence
from typing import Any

from edm2core.metrics.names import split
from edm2core.report.figures.axes import Part, metric_title, number, of_dataset, only, sentence
from edm2core.report.figures.curves import POINT, reach
from edm2core.report.figures.figure import Cells, Figure, Mark, Reading
from edm2core.report.figures.maps import choices
from edm2core.report.figures.styles import Styles
from edm2core.report.figures.theme import SHAPES
from edm2core.report.guidance import GuidanceSweep
from edm2core.report.results import label


def guidance_figures(sweeps: Sequence[GuidanceSweep], styles: Styles) -> list[Figure]:
    """Each metric by weight; then each other metric against recall, where recall was measured in the same features."""
    groups: dict[tuple[str, str, str, int | None], list[GuidanceSweep]] = {}
    for sweep in sweeps:
        groups.setdefault((sweep.dataset, sweep.metric, sweep.protocol, sweep.n), []).append(sweep)
    datasets, figures = {sweep.dataset for sweep in sweeps}, list[Figure]()
    for index, ((dataset, metric, protocol, _), own) in enumerate(groups.items()):
        cells = [cell for sweep in own for cell in _cells(sweep, styles)]
        title = of_dataset(f"{label(metric)} by guidance's weight", dataset, datasets)
        y = number("value", metric_title(metric), reach(cells))
        figures.append(_figure(f"guidance-{index}", title, protocol, cells, _weights(cells), y, "weight"))
        if split(metric)[0] != "recall" and (both := _against_recall(own, sweeps, styles)):
            title = of_dataset(f"{label(metric)} against recall, by guidance", dataset, datasets)
            x = number("recall", "↑ recall · higher is better", [cell["recall"] for cell in both])
            x = {**x, "axis": {"title": "↑ Recall · higher is better", "tickCount": 5}}
            figures.append(_figure(f"guidance-recall-{index}", title, protocol, both, x, y, "recall"))
    return figures


def _figure(name: str, title: str, protocol: str, cells: Cells, x: Part, y: Part, along: str) -> Figure:
    curves = list(dict.fromkeys(cell["guided"] for cell in cells))
    words = "Samples of the same weights from the same noise. The ring is the best, which a recheck draws again."
    words += " Along a curve the weight rises." if along == "recall" else ""
    words += f" Mean over {max(cell['seeds'] for cell in cells)} training seeds." if any(cell["seeds"] > 1 for cell in cells) else ""
    legend = tuple(Mark("guided", curve, color=place, shape=SHAPES[place % len(SHAPES)]) for place, curve in enumerate(curves))
    reading = Reading("weight", "guidance's weight", ("guided",)) if along == "weight" else None
    return Figure(
        name, title, f"{words} {sentence(protocol)}", cells, _spec(x, y, curves), legend=legend, choices=choices(cells), reading=reading
    )


def _cells(sweep: GuidanceSweep, styles: Styles) -> Cells:
    whose = sweep.recipe + (f" · EMA {sweep.ema}" if len(styles.emas) > 1 else "")
    return [
        {
            **{"training": whose, "epoch": sweep.epoch, "guided": point.how, "guide": point.guide, "interval": point.interval},
            **{"weight": point.weight, "evaluations": point.evaluations, "value": point.value},
            **{"seeds": len(point.values), "best": point is sweep.best},
        }
        for point in sweep.points
    ]


def _against_recall(own: Sequence[GuidanceSweep], sweeps: Sequence[GuidanceSweep], styles: Styles) -> Cells:
    """The cells of these sweeps that have a recall in the same features, with it."""
    cells: list[dict[str, Any]] = []
    for sweep in own:
        who = (sweep.dataset, sweep.recipe, sweep.epoch, sweep.ema, sweep.protocol)
        recalls = [o for o in sweeps if split(o.metric)[0] == "recall" and (o.dataset, o.recipe, o.epoch, o.ema, o.protocol) == who]
        values = {point.recipe: point.value for other in recalls for point in other.points}
        for cell, point in zip(_cells(sweep, styles), sweep.points, strict=True):
            if point.recipe in values:
                cells.append({**cell, "recall": values[point.recipe]})
    return cells


def _weights(cells: Cells) -> Part:
    ticks = sorted({cell["weight"] for cell in cells})
    axis = {"title": "guidance's weight", "format": "~g", "values": ticks}
    return {"field": "weight", "type": "quantitative", "scale": {"zero": False, "nice": False, "padding": 14}, "axis": axis}


def _spec(x: Part, y: Part, curves: Sequence[str]) -> Part:
    channel = {"field": "guided", "type": "nominal", "legend": {"values": list(curves), "title": None}}
    color = {**channel, "scale": {"domain": list(curves)}}
    shape = {**channel, "scale": {"domain": list(curves), "range": [SHAPES[place % len(SHAPES)] for place in range(len(curves))]}}
    order = {"field": "weight", "type": "quantitative"}
    ring = {"type": "point", "filled": False, "size": 170, "strokeWidth": 1.5, "color": {"expr": "ink"}, "opacity": 0.7}
    return {
        "encoding": {"x": x},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y, "color": color, "order": order}},
            {"mark": POINT, "encoding": {"y": y, "color": color, "shape": shape}},
            {"mark": ring, "transform": only("datum.best"), "encoding": {"y": y}},
        ],
    }
