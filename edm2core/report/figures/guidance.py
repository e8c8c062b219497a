"""What guidance does: a metric against the weight, as curves and as a map, and quality against diversity, by guide and interval."""

from collections.abc import Sequence
from typing import Any

from edm2core.metrics.names import split
from edm2core.report.figures.axes import Part, metric_title, number, of_dataset, only, sentence
from edm2core.report.figures.curves import POINT, reach
from edm2core.report.figures.figure import Cells, Figure, Mark, Reading
from edm2core.report.figures.maps import axis, choices, heat
from edm2core.report.figures.styles import Styles
from edm2core.report.figures.theme import SHAPES
from edm2core.report.guidance import GuidanceSweep
from edm2core.report.results import label


def guidance_figures(sweeps: Sequence[GuidanceSweep], styles: Styles) -> list[Figure]:
    """Each metric by weight, and as a map; each other metric also against recall, where recall was measured in the same features."""
    groups: dict[tuple[str, str, str, int | None], list[GuidanceSweep]] = {}
    for sweep in sweeps:
        groups.setdefault((sweep.dataset, sweep.metric, sweep.protocol, sweep.n), []).append(sweep)
    datasets, figures = {sweep.dataset for sweep in sweeps}, list[Figure]()
    for index, ((dataset, metric, protocol, _), own) in enumerate(groups.items()):
        cells = [cell for sweep in own for cell in _cells(sweep, styles)]
        title = of_dataset(f"{label(metric)} by guidance's weight", dataset, datasets)
        y = number("value", metric_title(metric), reach(cells))
        figures.append(_figure(f"guidance-{index}", title, protocol, cells, _weights(cells), y, "weight"))
        title = of_dataset(f"{label(metric)} by weight, guide and noise levels", dataset, datasets)
        figures.append(_map(f"guidance-map-{index}", title, metric, protocol, cells, max(sweep.places for sweep in own)))
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
    words += " Bars are one standard error of the sampling of images." if any("error" in cell for cell in cells) else ""
    legend = tuple(Mark("guided", curve, color=place, shape=SHAPES[place % len(SHAPES)]) for place, curve in enumerate(curves))
    reading = Reading("weight", "guidance's weight", ("guided",)) if along == "weight" else None
    return Figure(
        name,
        title,
        f"{words}{_of_seeds(cells)} {sentence(protocol)}",
        cells,
        _spec(x, y, curves),
        legend=legend,
        choices=choices(cells),
        reading=reading,
    )


def _map(name: str, title: str, metric: str, protocol: str, cells: Cells, digits: int) -> Figure:
    ways, weights = (list(dict.fromkeys(cell[column] for cell in cells)) for column in ("guided", "weight"))
    values = [cell["value"] for cell in cells]
    told: list[Part] = [{"field": "error", "title": "standard error", "format": f".{digits}f"}] if any("error" in c for c in cells) else []
    x, y = axis("weight", "guidance's weight", sorted(weights)), axis("guided", "guide and noise levels", ways)
    y["axis"] |= {"labelExpr": "split(datum.label, ', ')", "labelLimit": 0}
    spec = heat(x, y, "value", metric_title(metric), (min(values), max(values)), f".{digits}f", told)
    spec["layer"][0]["encoding"]["color"]["legend"]["title"] = None  # the title of the figure says it
    square = {"type": "rect", "fill": None, "stroke": {"expr": "accent"}, "strokeWidth": 3}
    spec["layer"].append({"mark": square, "transform": only("datum.best")})
    one = " Weight 1 is drawn without guidance, once for all rows." if 1 in weights else ""
    caption = f"{metric_title(metric)}. The square marks the best.{one}{_of_seeds(cells)} {sentence(protocol)}"
    return Figure(name, title, caption, cells, spec, choices=choices(cells), shape=(max(200, 64 * len(weights)), 52 * len(ways)))


def _of_seeds(cells: Cells) -> str:
    most = max(cell["seeds"] for cell in cells)
    return f" Mean over {most} training seeds." if most > 1 else ""


def _cells(sweep: GuidanceSweep, styles: Styles) -> Cells:
    """The points of each curve: the unguided one stands in all of them."""
    whose = sweep.recipe + (f" · EMA {sweep.ema}" if len(styles.emas) > 1 else "")
    cells: list[dict[str, Any]] = []
    for how, points in sweep.curves.items():
        for point in points:
            around = {} if point.error is None else {"error": point.error}
            around |= {} if point.error is None else {"error_low": point.value - point.error, "error_high": point.value + point.error}
            cells.append(
                {
                    **{"training": whose, "epoch": sweep.epoch, "guided": how, "guide": point.guide, "interval": point.interval},
                    **{"weight": point.weight, "evaluations": point.evaluations, "value": point.value},
                    **{"seeds": len(point.by_seed), "best": point is sweep.best, **around},
                }
            )
    return cells


def _against_recall(own: Sequence[GuidanceSweep], sweeps: Sequence[GuidanceSweep], styles: Styles) -> Cells:
    """The cells of these sweeps that have a recall in the same features, with it."""
    cells: list[dict[str, Any]] = []
    for sweep in own:
        who = (sweep.dataset, sweep.recipe, sweep.epoch, sweep.ema, sweep.protocol)
        recalls = [o for o in sweeps if split(o.metric)[0] == "recall" and (o.dataset, o.recipe, o.epoch, o.ema, o.protocol) == who]
        values = {(cell["guided"], cell["weight"]): cell["value"] for other in recalls for cell in _cells(other, styles)}
        found = [(cell, values.get((cell["guided"], cell["weight"]))) for cell in _cells(sweep, styles)]
        cells += [{**cell, "recall": recall} for cell, recall in found if recall is not None]
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
    error = {"y": {**y, "field": "error_low"}, "y2": {"field": "error_high"}, "color": color}
    ring = {"type": "point", "filled": False, "size": 170, "strokeWidth": 1.5, "color": {"expr": "ink"}, "opacity": 0.7}
    return {
        "encoding": {"x": x},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y, "color": color, "order": order}},
            {"mark": {"type": "rule", "strokeWidth": 1.25}, "transform": only("isValid(datum.error_low)"), "encoding": error},
            {"mark": POINT, "encoding": {"y": y, "color": color, "shape": shape}},
            {"mark": ring, "transform": only("datum.best"), "encoding": {"y": y}},
        ],
    }
