"""A metric against the value of a swept setting: figures as plain plotly dictionaries, and what differs on one and the same snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from edm2core.config.describe import in_words
from edm2core.plan.probe_metrics import is_probe
from edm2core.plan.sweep import TRAINED, Swept
from edm2core.report.collect import Report, Result
from edm2core.report.figures import Figure, Styles, plot
from edm2core.report.protocol import apart
from edm2core.report.results import Row, better, higher_is_better, label

Lines = dict[
    tuple[str, int, str], dict[int, dict[Any, list[float]]]
]  # (recipe without the setting, seed, average) → epoch → value → metric


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
                    means = {in_words("", value): fmean(each) for value, each in values.items()}
                    found.setdefault(setting, []).append(SameSnapshot(setting, metric, recipe, seed, ema, epoch, means))
    return found


def setting_figures(report: Report, rows: Mapping[Row, Result], styles: Styles) -> list[Figure]:
    """One figure for each data set, metric, protocol and swept setting, a line for each recipe that was swept, at its last epoch."""
    groups = _groups(report, rows, styles)
    figures = []
    for number, ((dataset, metric, protocol, setting), lines) in enumerate(groups.items()):
        recipes = list(dict.fromkeys(who[0] for who in lines))
        own = Styles(recipes, styles.seeds, styles.emas)
        traces = [
            own.trace(*who) | {"mode": "lines+markers", "hovertemplate": "%{y:.4~g}"} | _last(by_epoch) for who, by_epoch in lines.items()
        ]
        drawn = plot(traces, setting)
        if all(isinstance(x, float) and x > 0 for trace in traces for x in trace["x"]):
            drawn["layout"]["xaxis"] |= {"type": "log"}
        epochs = sorted({max(by_epoch) for by_epoch in lines.values()})
        caption = f"At epoch {', '.join(map(str, epochs))}; {better(metric)} is better. {protocol[0].upper()}{protocol[1:]}."
        title = f"{label(metric)} by {setting}" + (f" · {dataset}" if len({key[0] for key in groups}) > 1 else "")
        figures.append(Figure(f"setting-{number}", title, caption, drawn, log=not higher_is_better(metric)))
    return figures


def _groups(report: Report, rows: Mapping[Row, Result], styles: Styles) -> dict[tuple[str, str, str, str], Lines]:
    """The lines of each (data set, metric, protocol without the setting, swept setting)."""
    groups: dict[tuple[str, str, str, str], Lines] = {}
    for row, result in sorted(rows.items(), key=lambda item: _order(item[0], styles)):
        if row.value is None or row.epoch is None or row.seed is None or result.task.subject.sweep is None:
            continue
        place = result.task.subject.sweep
        other = "sample" if result.task.stage == "probe" else "probe"
        for setting, value in place.at.items():
            if setting.startswith(f"{other}."):  # which this metric does not depend on
                continue
            rest = Swept(place.of, {name: each for name, each in place.at.items() if name != setting})
            lines = groups.setdefault((row.dataset, row.metric, apart(report, result, row.metric, place.at), setting), {})
            values = lines.setdefault((rest.name, row.seed, row.ema or ""), {}).setdefault(row.epoch, {})
            values.setdefault(float(value) if _is_number(value) else in_words("", value), []).append(row.value)
    return groups


def _order(row: Row, styles: Styles) -> tuple[Any, ...]:
    return is_probe(row.metric), row.metric, styles.recipes.index(row.recipe) if row.recipe else -1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _last(by_epoch: Mapping[int, Mapping[Any, list[float]]]) -> dict[str, Any]:
    """The last epoch's metric by the setting's value, ascending; in the experiment's order where some values are words."""
    last = by_epoch[max(by_epoch)]
    numbers = all(map(_is_number, last))
    found = sorted(last.items()) if numbers else last.items()
    return {"x": [value if numbers else in_words("", value) for value, _ in found], "y": [fmean(values) for _, values in found]}
