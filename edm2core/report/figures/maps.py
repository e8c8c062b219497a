"""Maps: a number for each pair of two things, as colour and, where there is room, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from edm2core.report.collect import Report, Result
from edm2core.report.figures.axes import Part, only
from edm2core.report.figures.figure import Figure
from edm2core.report.figures.styles import Styles
from edm2core.report.results import clean

WRITTEN = 12  # columns up to which every cell shows its number


def probe_maps(report: Report, styles: Styles) -> list[Figure]:
    """The probes' accuracy by noise level and block, where probes tried more than one cell: all trainings and epochs on one scale."""
    found: dict[tuple[str, int], Result] = {}
    for result in report.of_stage("probe"):
        subject = result.task.subject
        if subject.recipe and len(result.metadata.get("cells") or []) > 1:
            found[styles.name(*subject.training, subject.ema), subject.epoch] = result
    return [_probe_map(found)] if found else []


def _probe_map(found: Mapping[tuple[str, int], Result]) -> Figure:
    tried = [cell for result in found.values() for cell in result.metadata["cells"]]
    held_out = all(cell.get("validation_accuracy") is not None for cell in tried)
    shown = "validation_accuracy" if held_out else "test_accuracy"
    rows = []
    for (training, epoch), result in sorted(found.items(), key=lambda item: item[0][1]):
        chosen = result.metadata.get("chosen") or {}
        for cell in result.metadata["cells"]:
            best = bool(chosen) and (cell["t"], cell["block"]) == (chosen["t"], chosen["block"])
            numbers = {"accuracy": clean(cell.get(shown)), "test_accuracy": clean(cell.get("test_accuracy")), "chosen": best}
            rows.append({"training": training, "epoch": epoch, "t": cell["t"], "block": cell["block"], **numbers})
    values = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    blocks = sorted({row["block"] for row in rows}, key=lambda block: (len(block), block))
    levels = sorted({row["t"] for row in rows})
    domain = (min(values, default=0.0), max(values, default=100.0))
    told = [{"field": "accuracy", "title": "held out, %" if held_out else "test, %", "format": ".2f"}]
    told += [{"field": "test_accuracy", "title": "test, %", "format": ".2f"}] if held_out else []
    x, y = axis("block", "decoder block", blocks), axis("t", "noise level t", levels)
    spec = heat(x, y, "accuracy", "accuracy, %", domain, ".1f", told)
    square = {"type": "rect", "fill": None, "stroke": {"expr": "accent"}, "strokeWidth": 3}
    spec["layer"].append({"mark": square, "transform": only("datum.chosen")})
    caption = (
        "Accuracy on images held out of the training set. The square marks the cell chosen on them. The table has its test accuracy."
        if held_out
        else "Accuracy on the test images. The square marks the cell that was chosen on them, since the protocol holds nothing out."
    )
    shape = (max(200, 56 * len(blocks)), 44 * len(levels))
    return Figure("map", "Probe accuracy", caption, rows, spec, choices=choices(rows), shape=shape)


def choices(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Training and epoch, of which one is shown at a time: first the first training, and its last epoch."""
    trainings = list(dict.fromkeys(row["training"] for row in rows))
    last = max(row["epoch"] for row in rows if row["training"] == trainings[0])
    return {"epoch": [last, *sorted({row["epoch"] for row in rows} - {last})], "training": trainings}


def axis(field: str, title: str, values: Sequence[Any]) -> Part:
    """An axis of names or levels, in the order given."""
    return {
        "field": field,
        "type": "nominal",
        "sort": list(values),
        "axis": {"title": title, "labelAngle": 0, "domain": False, "ticks": False},
    }


def heat(x: Part, y: Part, field: str, title: str, domain: tuple[float, float], digits: str, told: list[Part]) -> dict[str, Any]:
    """Cells whose colour, number and bar all mean the column `field`; `told` is what a pointer is told besides."""
    legend = {"title": title, "orient": "right", "direction": "vertical", "gradientLength": 140, "gradientThickness": 10}
    scale = {"domain": list(domain), "range": "heatmap"}
    color = {"field": field, "type": "quantitative", "scale": scale, "legend": legend}
    pointed = [{"field": part["field"], "type": "nominal", "title": part["axis"]["title"]} for part in (y, x)]
    told = [{"type": "quantitative", **each} for each in told]
    y = {**y, "axis": {**y["axis"], "titleX": 0, "titleY": -8}}
    layers: list[Part] = [{"mark": {"type": "rect"}, "encoding": {"color": color, "tooltip": [*pointed, *told]}}]
    if len(x["sort"]) <= WRITTEN:
        middle = (domain[0] + domain[1]) / 2
        ink = {"condition": {"test": f"datum.{field} > {middle}", "value": {"expr": "paper"}}, "value": {"expr": "ink"}}
        text = {"field": field, "type": "quantitative", "format": digits}
        mark = {"type": "text", "fontSize": 11}
        layers.append({"mark": mark, "transform": only(f"isValid(datum.{field})"), "encoding": {"text": text, "color": ink}})
    return {"encoding": {"x": x, "y": y}, "layer": layers}
