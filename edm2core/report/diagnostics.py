"""What happens inside the networks, recipe beside recipe (as EDM2's figures 3 and 15 show it): plain plotly dictionaries."""

import math
from collections.abc import Mapping
from typing import Any

from edm2core.diffusion.layout import BlockSpec, layout
from edm2core.report.collect import Report
from edm2core.report.figures import Figure, Styles, plot

WHATS = {"activation": "Activation magnitude", "weight": "Weight magnitude"}
CAPTIONS = {
    "activation": "Root mean square of the residual blocks' outputs, at training's noise levels.",
    "weight": "Root mean square of the averaged weights; 1 keeps the magnitude of independent inputs.",
}
PARTS = {"encoder": ("solid", "circle"), "middle": ("dot", "diamond"), "decoder": ("dash", "square")}  # dash and symbol
Trainings = dict[tuple[str, int], dict[int, dict[str, Any]]]  # (recipe, seed) → epoch → what was found


def magnitude_figures(report: Report, styles: Styles) -> list[Figure]:
    """Magnitudes against the epoch: each training's mean over levels, then level by level for each recipe's first seed."""
    trainings = _trainings(report)
    blocks = [block for recipe in report.plan.recipes.values() for block in layout(recipe.network)]
    levels = {f"{block.part} {block.side}": block for block in blocks}  # by the name that the stage gives each level
    return [figure for what in WHATS for figure in (*_means(trainings, what, styles), *_by_level(trainings, what, styles, levels))]


def noise_figures(report: Report, styles: Styles) -> list[Figure]:
    """Loss and u(σ) against the noise level, a line for each training; all epochs, of which only the last is visible."""
    losses: list[dict[str, Any]] = []
    log_variances: list[dict[str, Any]] = []
    trainings = _trainings(report)
    latest = max((epoch for epochs in trainings.values() for epoch in epochs), default=0)
    for who, epochs in trainings.items():
        trace = styles.trace(*who)
        name, dotted = trace["name"], {"line": {"width": 2, "dash": "dot"}}
        for epoch, found in sorted(epochs.items()):
            line = trace | {"mode": "lines", "x": found["sigmas"], "hovertemplate": "%{y:.3~g}"}
            line |= {"meta": {**trace["meta"], "epoch": epoch}, "visible": epoch == latest}
            losses.append(line | {"y": found["train_loss"]})
            if found["test_loss"]:
                losses.append(line | dotted | {"y": found["test_loss"], "name": f"{name} · held out"})
            if found["log_variance"]:
                logs = [math.log(loss) if loss else None for loss in found["train_loss"]]
                log_variances.append(line | {"y": found["log_variance"]})
                log_variances.append(line | dotted | {"y": logs, "name": f"{name} · ln of its loss"})
    figures = []
    if losses:
        caption = "λ(σ) · mean squared error, without dropout. Dotted: on test images, which training never saw."
        figures.append(Figure("noise-loss", "Loss by noise level", caption, _by_sigma(losses), log=True))
    if log_variances:
        caption = "What training learns to weight the loss by: u(σ) is best where it is the loss's logarithm, dotted (on training images)."
        figures.append(Figure("noise-log-variance", "Learned log-variance u(σ)", caption, _by_sigma(log_variances)))
    return figures


def _means(trainings: Trainings, what: str, styles: Styles) -> list[Figure]:
    traces = [
        styles.trace(*who) | {"mode": "lines+markers", "hovertemplate": "%{y:.3~g}"} | _points({e: f[what] for e, f in epochs.items()})
        for who, epochs in trainings.items()
    ]
    return [Figure(what, WHATS[what], f"{CAPTIONS[what]} Mean over the levels.", plot(traces, "epoch"), log=True)] if traces else []


def _by_level(trainings: Trainings, what: str, styles: Styles, levels: Mapping[str, BlockSpec]) -> list[Figure]:
    """A figure for each recipe, all with the same vertical axis."""
    firsts = {who: epochs for who, epochs in trainings.items() if who[1] == min(seed for recipe, seed in trainings if recipe == who[0])}
    names = dict.fromkeys(level["level"] for epochs in firsts.values() for found in epochs.values() for level in found["levels"])
    shown = {name: (levels[name].part, levels[name].side) for name in names if name in levels}
    sides = sorted({side for _, side in shown.values()}, reverse=True)
    values = [v for epochs in firsts.values() for f in epochs.values() for level in f["levels"] if (v := level[what])]
    figures = []
    for number, ((recipe, seed), epochs) in enumerate(firsts.items()):
        traces = []
        for name, (part, side) in shown.items():
            lines = {e: level[what] for e, found in epochs.items() for level in found["levels"] if level["level"] == name}
            if lines:
                dash, symbol = PARTS[part]
                style = {"line": {"width": 2, "dash": dash}, "marker": {"size": 7, "symbol": symbol}}
                trace = {"type": "scatter", "mode": "lines+markers", "name": f"{part} {side}×{side}", "hovertemplate": "%{y:.3~g}"}
                traces.append(trace | {"meta": {"color": sides.index(side)}} | style | _points(lines))
        drawn = plot(traces, "epoch")
        low, high = math.log10(min(values, default=1.0)), math.log10(max(values, default=1.0))
        margin = max(0.05 * (high - low), 0.02)
        drawn["layout"]["yaxis"] |= {"type": "log", "range": [low - margin, high + margin], "nticks": 8}
        caption = "By the side of a level's feature maps; logarithmic, with the same axis for every recipe."
        figures.append(Figure(f"{what}-{number}", f"{WHATS[what]} · {styles.name(recipe, seed)}", caption, drawn))
    return figures


def _points(values: dict[int, float | None]) -> dict[str, Any]:
    return {"x": sorted(values), "y": [values[epoch] for epoch in sorted(values)]}


def _by_sigma(traces: list[dict[str, Any]]) -> dict[str, Any]:
    drawn = plot(traces, "noise level σ")
    drawn["layout"]["xaxis"] |= {"type": "log", "dtick": 1}
    return drawn


def _trainings(report: Report) -> Trainings:
    trainings: Trainings = {}
    for result in report.of_stage("diagnostics"):
        subject = result.task.subject
        if result.manifest:
            trainings.setdefault(subject.training, {})[subject.epoch] = result.metadata
    return trainings
