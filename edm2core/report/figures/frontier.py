"""What quality costs: a metric against evaluations, seconds and joules, one point a sampler, with those marked that no other beats."""

from collections.abc import Sequence
from typing import Any

from edm2core.report.figures.axes import Part, metric_title, number, of_dataset, only, sentence
from edm2core.report.figures.curves import POINT, reach
from edm2core.report.figures.figure import Cells, Figure, Mark, Reading
from edm2core.report.figures.maps import choices
from edm2core.report.figures.styles import Styles
from edm2core.report.figures.theme import SHAPES
from edm2core.report.frontier import COSTS, Frontier
from edm2core.report.results import label

AXES = {
    "evaluations": ("network evaluations", "network evaluations for an image"),
    "seconds": ("seconds", "seconds for 1,000 images"),
    "joules": ("energy", "joules for 1,000 images"),
}
WIDE = 10.0  # values that differ by this factor are drawn on a logarithmic axis


def frontier_figures(frontiers: Sequence[Frontier], styles: Styles) -> list[Figure]:
    """For each data set, metric and protocol a figure for each cost that is known; of several snapshots one is shown at a time.

    Seconds and joules of different devices are not comparable, so each device has its own figure.
    """
    groups: dict[tuple[str, str, str, int | None], list[Frontier]] = {}
    for frontier in frontiers:
        groups.setdefault((frontier.dataset, frontier.metric, frontier.protocol, frontier.n), []).append(frontier)
    datasets, figures = {frontier.dataset for frontier in frontiers}, list[Figure]()
    for index, ((dataset, metric, protocol, _), own) in enumerate(groups.items()):
        for cost in COSTS:
            for place, device in enumerate(_devices(own, cost)):
                name = f"frontier-{cost}-{index}" + (f"-{place}" if place else "")
                title = of_dataset(f"{label(metric)} by {AXES[cost][0]}", dataset, datasets)
                figures.append(_figure(name, title, cost, device, metric, protocol, own, styles))
    return figures


def _devices(frontiers: Sequence[Frontier], cost: str) -> list[str]:
    """The devices that a cost is known of; one empty name where it does not depend on the device."""
    if cost == "evaluations":
        return [""]
    return list(dict.fromkeys(p.device for frontier in frontiers for p in frontier.points if p.cost(cost) is not None))


def _figure(
    name: str, title: str, cost: str, device: str, metric: str, protocol: str, frontiers: Sequence[Frontier], styles: Styles
) -> Figure:
    cells = [cell for frontier in frontiers for cell in _cells(frontier, cost, device, styles)]
    solvers = list(dict.fromkeys(cell["solver"] for cell in cells))
    values = reach(cells)
    log = min(values) > 0 and max(values) > WIDE * min(values)
    y = number("value", metric_title(metric), values, **({"type": "log"} if log else {}))
    legend = tuple(Mark("solver", solver, color=number, shape=SHAPES[number % len(SHAPES)]) for number, solver in enumerate(solvers))
    words = "Samplers of the same weights, from the same noise. Rings, joined by a dashed line, mark those that no other beats in both."
    words += " Bars are one standard error of the sampling of images." if any("error" in cell for cell in cells) else ""
    words += f" Mean over {max(cell['seeds'] for cell in cells)} training seeds." if any(cell["seeds"] > 1 for cell in cells) else ""
    words += f" Costs are of drawing alone, on one {device}." if device else ""
    return Figure(
        name,
        title,
        f"{words} {sentence(protocol)}",
        cells,
        _spec(cost, y, solvers, sorted({cell[cost] for cell in cells})),
        legend=legend,
        log=() if log or min(values) <= 0 else ("y",),
        choices=choices(cells),
        reading=Reading(cost, AXES[cost][1], ("solver",)),
    )


def _cells(frontier: Frontier, cost: str, device: str, styles: Styles) -> Cells:
    """A frontier's points whose cost is known, of this device."""
    best, cells = frontier.undominated(cost), list[dict[str, Any]]()
    for point in sorted(frontier.points, key=lambda point: (point.solver, point.evaluations)):
        spent = point.cost(cost)
        if spent is None or (device and point.device != device):
            continue
        around = {} if point.error is None else {"error": point.error}
        around |= {} if point.error is None else {"error_low": point.value - point.error, "error_high": point.value + point.error}
        who = {"training": _training(frontier, styles), "epoch": frontier.epoch, "solver": point.solver, "steps": point.steps}
        cells.append({**who, cost: spent, "value": point.value, "seeds": len(point.by_seed), "best": point in best, **around})
    return cells


def _training(frontier: Frontier, styles: Styles) -> str:
    """Whose frontier it is, among those of a figure."""
    return frontier.recipe + (f" · EMA {frontier.ema}" if len(styles.emas) > 1 else "")


def _spec(cost: str, y: Part, solvers: Sequence[str], ticks: Sequence[float]) -> Part:
    scale = {"type": "log", "nice": False, "padding": 14}
    values = {"values": ticks} if cost == "evaluations" else {"tickCount": 6}
    x = {"field": cost, "type": "quantitative", "scale": scale, "axis": {"title": AXES[cost][1], "format": "~g", **values}}
    channel = {"field": "solver", "type": "nominal", "legend": {"values": list(solvers), "title": None}}
    color = {**channel, "scale": {"domain": list(solvers)}}
    shape = {**channel, "scale": {"domain": list(solvers), "range": [SHAPES[number % len(SHAPES)] for number in range(len(solvers))]}}
    best = {"transform": only("datum.best"), "encoding": {"y": y}}
    plain = {"color": {"expr": "ink"}, "opacity": 0.7}
    edge = {"type": "line", "strokeDash": [5, 3], "strokeWidth": 1.25, "interpolate": "step-after", **plain}
    error = {"y": {**y, "field": "error_low"}, "y2": {"field": "error_high"}, "color": color}
    return {
        "encoding": {"x": x},
        "layer": [
            {"mark": edge, **best},
            {"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.5}, "encoding": {"y": y, "color": color}},
            {"mark": {"type": "rule", "strokeWidth": 1.25}, "transform": only("isValid(datum.error_low)"), "encoding": error},
            {"mark": POINT, "encoding": {"y": y, "color": color, "shape": shape}},
            {"mark": {"type": "point", "filled": False, "size": 170, "strokeWidth": 1.5, **plain}, **best},
        ],
    }
