"""A metric against the value of a swept setting: figures, and what differs on one and the same snapshot.

Samplers that differ in solver or steps are compared on frontiers alone, and guidance in a section of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from edm2core.config.describe import in_words
from edm2core.plan.probe_metrics import is_probe
from edm2core.plan.subject import TRAINED
from edm2core.report.collect import Report, Result
from edm2core.report.figures import Figure, Styles
from edm2core.report.figures.axes import Part, metric_title, number, of_dataset, only, sentence
from edm2core.report.figures.curves import MEAN, curve, of_seeds, over_seeds, reach
from edm2core.report.figures.figure import Cells, Reading
from edm2core.report.frontier import swept_samplers
from edm2core.report.guidance import GUIDANCE
from edm2core.report.protocol import apart
from edm2core.report.results import Row, higher_is_better, label

Lines = dict[tuple[str, int, str], dict[int, dict[Any, list[Row]]]]  # (recipe without the setting, seed, average) → epoch → value


@dataclass(frozen=True)
class SameSnapshot:
    """One metric of one snapshot, by the value of a setting that only evaluates."""

    setting: str
    metric: str
    recipe: str
    seed: int
    ema: str
    epoch: int
    values: dict[str, float]  # the setting's value in words → the metric, the mean of its draws; in the experiment's order

    def change(self, value: str) -> float:
        """By how much the metric differs from that at the first value, as a share of it."""
        first = next(iter(self.values.values()))
        return (self.values[value] - first) / abs(first) if first else 0.0


def same_snapshots(report: Report, rows: Mapping[Row, Result], styles: Styles) -> dict[str, list[SameSnapshot]]:
    """What each swept setting that only evaluates does to every metric of every snapshot, by setting."""
    found: dict[str, list[SameSnapshot]] = {}
    for (_, metric, _, setting), lines in _groups(report, rows, styles).items():
        for (recipe, seed, ema), by_epoch in lines.items() if setting.partition(".")[0] not in TRAINED else ():
            for epoch, values in by_epoch.items():
                if len(values) > 1:
                    means = {in_words("", value): _mean(each) for value, each in values.items()}
                    found.setdefault(setting, []).append(SameSnapshot(setting, metric, recipe, seed, ema, epoch, means))
    return found


def setting_figures(report: Report, rows: Mapping[Row, Result], styles: Styles) -> list[Figure]:
    """One figure for each data set, metric, protocol and swept setting, at the last epoch.

    A thin line joins recipes that differ in the setting alone; each point has its recipe's colour.
    """
    groups = _groups(report, rows, styles)
    datasets = {dataset for dataset, *_ in groups}
    figures = []
    for index, ((dataset, metric, protocol, setting), lines) in enumerate(groups.items()):
        title = of_dataset(f"{label(metric)} by {setting}", dataset, datasets)
        figures.append(_figure(f"setting-{index}", title, (metric, protocol, setting), lines, styles))
    return figures


def _figure(name: str, title: str, of: tuple[str, str, str], lines: Lines, styles: Styles) -> Figure:
    metric, protocol, setting = of
    by_line: dict[tuple[str, str], dict[int, dict[Any, list[Row]]]] = {}  # (recipe without the setting, average) → seed → value
    for (recipe, seed, ema), by_epoch in lines.items():
        by_line.setdefault((recipe, ema), {})[seed] = by_epoch[max(by_epoch)]
    cells = [cell for line, by_seed in by_line.items() for cell in _cells(line, by_seed)]
    recipes = [recipe for recipe in styles.recipes if any(cell["recipe"] == recipe for cell in cells)]
    values = list(dict.fromkeys(cell["at"] for cell in cells))
    y, (seeds, words) = number("value", metric_title(metric), reach(cells)), of_seeds(cells)
    epochs = ", ".join(map(str, sorted({max(by_epoch) for by_epoch in lines.values()})))
    caption = f"Values are at epoch {epochs}. A line joins recipes that differ only in {setting}. {sentence(protocol)}{words}"
    reading = Reading("at", setting, ("line", "ema") if len(styles.emas) > 1 else ("line",))
    log = () if higher_is_better(metric) or min(reach(cells)) <= 0 else ("y",)
    spec = _spec(_axis(setting, values), y, styles, recipes, several=len(by_line) > 1, seeds=seeds > 1)
    return Figure(name, title, caption, cells, spec, styles.marks(recipes), log, reading=reading, has_seeds=seeds > 1)


def _cells(line: tuple[str, str], by_seed: Mapping[int, Mapping[Any, list[Row]]]) -> Cells:
    """A line's means over seeds by the setting's value, ascending; in the experiment's order where some values are words."""
    values = list(dict.fromkeys(value for found in by_seed.values() for value in found))
    numbers = all(map(_is_number, values))
    values = sorted(values) if numbers else values
    means = {value: {seed: _mean(found[value]) for seed, found in by_seed.items() if value in found} for value in values}
    recipes = {value: rows[0].recipe for found in by_seed.values() for value, rows in found.items()}
    cells = over_seeds("at", means, line=line[0], ema=line[1])
    named = [{"recipe": recipes[cell["at"]], **cell, "last": cell["at"] == values[-1]} for cell in cells]
    return named if numbers else [{**cell, "at": in_words("", cell["at"])} for cell in named]


def _axis(setting: str, values: list[Any]) -> Part:
    if not all(map(_is_number, values)):
        return {"field": "at", "type": "nominal", "sort": values, "scale": {"type": "point"}, "axis": {"title": setting, "labelAngle": 0}}
    scale = {"zero": False, "nice": False, "padding": 16, **({"type": "log"} if min(values) > 0 else {})}
    return {"field": "at", "type": "quantitative", "scale": scale, "axis": {"title": setting, "values": values, "format": "~g"}}


def _spec(x: Part, y: Part, styles: Styles, recipes: list[str], *, several: bool, seeds: bool) -> Part:
    plain = replace(styles, emas=styles.emas if len(styles.emas) > 1 else [])
    spec = curve(x, y, plain, recipes, seeds=seeds)
    color = spec["encoding"].pop("color")
    points = spec["layer"].pop()
    points["encoding"]["color"] = color
    spec["encoding"]["detail"] = {"field": "line", "type": "nominal"}
    for layer in spec["layer"]:
        layer["mark"] |= {"color": {"expr": "ink"}, "opacity": 0.1 if layer["mark"]["type"] == "area" else 0.4}
    words = {"type": "text", "align": "right", "dx": -8, "dy": -10, "fontSize": 11, "opacity": 0.8}
    named = {"mark": words, "transform": only(f"{MEAN} && datum.last"), "encoding": {"y": y, "text": {"field": "line"}}}
    return {**spec, "layer": [*spec["layer"], points, *([named] if several else [])]}


def _mean(rows: list[Row]) -> float:
    return fmean(row.value for row in rows if row.value is not None)


def _groups(report: Report, rows: Mapping[Row, Result], styles: Styles) -> dict[tuple[str, str, str, str], Lines]:
    """The lines of each (data set, metric, protocol without the setting, swept setting)."""
    groups: dict[tuple[str, str, str, str], Lines] = {}
    for row, result in sorted(rows.items(), key=lambda item: _order(item[0], styles)):
        if row.value is None or row.epoch is None or row.seed is None or result.task.subject.sweep is None:
            continue
        place = result.task.subject.sweep
        other = "sample" if result.task.stage == "probe" else "probe"
        for setting, value in place.at.items():
            if (
                setting.startswith(f"{other}.") or setting in swept_samplers(place) or setting.startswith(GUIDANCE)
            ):  # no effect on this metric; on a frontier
                continue
            lines = groups.setdefault((row.dataset, row.metric, apart(report, result, row.metric, place.at), setting), {})
            values = lines.setdefault((place.without([setting]), row.seed, row.ema or ""), {}).setdefault(row.epoch, {})
            values.setdefault(float(value) if _is_number(value) else in_words("", value), []).append(row)
    return groups


def _order(row: Row, styles: Styles) -> tuple[Any, ...]:
    return is_probe(row.metric), row.metric, styles.recipes.index(row.recipe) if row.recipe else -1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
