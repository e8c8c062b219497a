"""What happens inside the networks, recipe beside recipe (as EDM2's figures 3 and 15 show it)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.layout import BlockSpec, layout
from edm2core.report.collect import Report
from edm2core.report.figures import Figure, Styles
from edm2core.report.figures.axes import Part, epochs, number, only
from edm2core.report.figures.curves import MEAN, curve, of_seeds, over_seeds, reach
from edm2core.report.figures.figure import Cells, Reading

WHATS = {"activation": "Activation magnitude", "weight": "Weight magnitude"}
CAPTIONS = {
    "activation": "Root mean square of the residual blocks' outputs, at training's noise levels.",
    "weight": "Root mean square of the averaged weights. A value of 1 keeps the magnitude of independent inputs.",
}
PARTS = {"encoder": "triangle-down", "middle": "diamond", "decoder": "triangle-up"}
Trainings = dict[tuple[str, int], dict[int, dict[str, Any]]]  # (recipe, seed) → epoch → what was found


def magnitude_figures(report: Report, styles: Styles) -> list[Figure]:
    """Magnitudes against the epoch: each recipe's mean over levels, then level by level for each recipe's first seed."""
    trainings = _trainings(report)
    networks = [recipe.network for recipe in report.plan.recipes.values() if isinstance(recipe.network, NetworkSettings)]
    blocks = [block for network in networks for block in layout(network)]
    levels = {f"{block.part} {block.side}": block for block in blocks}  # by the name that the stage gives each level
    return [figure for what in WHATS for figure in (*_means(trainings, what, styles), *_by_level(trainings, what, styles, levels))]


def noise_figures(report: Report, styles: Styles) -> list[Figure]:
    """Loss and u(σ) against the noise level, a line for each recipe; one epoch is shown at a time."""
    trainings = _trainings(report)
    loss = [
        *_by_noise(trainings, "on training images", lambda found: found["train_loss"]),
        *_by_noise(trainings, "held out", lambda found: found["test_loss"]),
    ]
    variance = [
        *_by_noise(trainings, "u(σ)", lambda found: found["log_variance"]),
        *_by_noise(trainings, "ln of the loss", lambda found: found["log_variance"] and list(map(_log, found["train_loss"]))),
    ]
    figures = []
    if loss:
        caption = "Lines are λ(σ) · mean squared error on training images, without dropout. Circles are on test images, unseen in training."
        figures.append(_noise_figure("noise-loss", "Loss by noise level", caption, "↓ loss · lower is better", loss, styles))
    if variance:
        caption = "Training learns u(σ) to weight the loss. The best u(σ) is the logarithm of the loss (circles, on training images)."
        figures.append(_noise_figure("noise-log-variance", "Learned log-variance u(σ)", caption, "u(σ)", variance, styles))
    return figures


def _means(trainings: Trainings, what: str, styles: Styles) -> list[Figure]:
    recipes = list(dict.fromkeys(recipe for recipe, _ in trainings))
    cells = [cell for recipe in recipes for cell in over_seeds("epoch", _over_epochs(trainings, recipe, what), recipe=recipe)]
    if not cells:
        return []
    seeds, words = of_seeds(cells)
    y = number("value", f"{what} magnitude (root mean square)", reach(cells))
    spec = curve(epochs(cell["epoch"] for cell in cells), y, replace(styles, emas=[]), recipes, seeds=seeds > 1)
    caption = f"{CAPTIONS[what]} Mean over the levels.{words}"
    reading = Reading("epoch", "epoch", ("recipe",))
    log = ("x", "y") if reach(cells) and min(reach(cells)) > 0 else ("x",)
    return [Figure(what, WHATS[what], caption, cells, spec, styles.marks(recipes), log, reading=reading, has_seeds=seeds > 1)]


def _over_epochs(trainings: Trainings, recipe: str, what: str) -> dict[int, dict[int, float | None]]:
    values: dict[int, dict[int, float | None]] = {}
    for (own, seed), found in trainings.items():
        for epoch in found if own == recipe else ():
            values.setdefault(epoch, {})[seed] = found[epoch][what]
    return dict(sorted(values.items()))


def _by_level(trainings: Trainings, what: str, styles: Styles, levels: Mapping[str, BlockSpec]) -> list[Figure]:
    """A figure for each recipe, all with the same vertical axis. Colour is the side of a level here, on a scale of its own."""
    firsts = {who: found for who, found in trainings.items() if who[1] == min(seed for recipe, seed in trainings if recipe == who[0])}
    by_training = {who: _level_cells(found, what, levels) for who, found in firsts.items()}
    every = [cell for cells in by_training.values() for cell in cells]
    heights = [cell["value"] for cell in every if cell["value"]]
    sides = sorted({cell["side"] for cell in every}, key=lambda side: -int(side.partition("×")[0]))
    y = number("value", f"{what} magnitude (root mean square)", heights, type="log", domain=_around(heights), nice=False)
    x = epochs(cell["epoch"] for cell in every)
    spec = {"encoding": {"x": x, "y": y, **_level_channels(sides)}, "layer": LEVEL_MARKS}
    caption = "Colour shows the side of a level's feature maps. The axis is logarithmic, and the same for every recipe."
    reading = Reading("epoch", "epoch", ("part", "side"))
    return [
        Figure(f"{what}-{number}", f"{WHATS[what]} · {styles.name(*who)}", caption, cells, spec, reading=reading)
        for number, (who, cells) in enumerate(by_training.items())
        if cells  # an own network has no levels
    ]


LEVEL_MARKS: list[Part] = [
    {"mark": {"type": "line", "strokeWidth": 2}},
    {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1}},
]


def _level_channels(sides: list[str]) -> Part:
    color = {
        "field": "side",
        "type": "ordinal",
        "sort": sides,
        "scale": {"domain": sides},
        "legend": {"title": None, "symbolType": "stroke"},
    }
    shapes = {"domain": list(PARTS), "range": list(PARTS.values())}
    return {"color": color, "shape": {"field": "part", "type": "nominal", "scale": shapes, "legend": {"title": None}}}


def _level_cells(found: Mapping[int, Mapping[str, Any]], what: str, levels: Mapping[str, BlockSpec]) -> Cells:
    named = [
        (epoch, levels[level["level"]], level[what])
        for epoch in sorted(found)
        for level in found[epoch]["levels"]
        if level["level"] in levels
    ]
    return [{"part": block.part, "side": f"{block.side}×{block.side}", "epoch": epoch, "value": value} for epoch, block, value in named]


def _around(values: list[float]) -> list[float]:
    """A logarithmic axis's range with a little room on both sides."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    margin = max((high / low) ** 0.05, 1.05)
    return [low / margin, high * margin]


def _by_noise(trainings: Trainings, kind: str, values: Callable[[dict[str, Any]], list[float | None] | None]) -> Cells:
    """One quantity by recipe, epoch and noise level."""
    by_line: dict[tuple[str, int], dict[float, dict[int, float | None]]] = {}
    for (recipe, seed), found in trainings.items():
        for epoch, metadata in found.items():
            for sigma, value in zip(metadata["sigmas"], values(metadata) or [], strict=False):
                by_line.setdefault((recipe, epoch), {}).setdefault(sigma, {})[seed] = value
    return [cell for (recipe, epoch), line in by_line.items() for cell in over_seeds("sigma", line, recipe=recipe, epoch=epoch, kind=kind)]


def _noise_figure(name: str, title: str, caption: str, axis: str, cells: Cells, styles: Styles) -> Figure:
    recipes = list(dict.fromkeys(cell["recipe"] for cell in cells))
    line, other = cells[0]["kind"], cells[-1]["kind"]
    seeds, words = of_seeds(cells)
    y = number("value", axis, reach(cells))
    scale, ticks = {"type": "log", "nice": False, "padding": 10}, {"title": "noise level σ", "format": "~g", "tickCount": 6}
    x = {"field": "sigma", "type": "quantitative", "scale": scale, "axis": ticks}
    spec = curve(x, y, replace(styles, emas=[]), recipes, f"datum.kind === '{line}'", seeds=seeds > 1, points=False)
    circles = {"type": "point", "filled": False, "size": 40, "strokeWidth": 1.5, "opacity": 1}
    spec["layer"].append({"mark": circles, "transform": only(f"{MEAN} && datum.kind !== '{line}'"), "encoding": {"y": y}})
    latest = max(cell["epoch"] for cell in cells)
    shown = {"epoch": [latest, *sorted({cell["epoch"] for cell in cells} - {latest})]}
    reading = Reading("sigma", "σ", ("recipe", "kind") if other != line else ("recipe",))
    log = ("y",) if reach(cells) and min(reach(cells)) > 0 else ()
    return Figure(name, title, caption + words, cells, spec, styles.marks(recipes), log, shown, reading, seeds > 1)


def _log(value: float | None) -> float | None:
    return math.log(value) if value else None


def _trainings(report: Report) -> Trainings:
    trainings: Trainings = {}
    for result in report.of_stage("diagnostics"):
        subject = result.task.subject
        if result.manifest:
            trainings.setdefault(subject.training, {})[subject.epoch] = result.metadata
    return trainings
