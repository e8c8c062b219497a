"""Figures as plain plotly dictionaries. Colours are numbers of a palette, which the page gives per theme."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from edm2core.provenance.science import brief
from edm2core.report.collect import Report, Result
from edm2core.report.ema_widths import Sweep
from edm2core.report.results import Row, better, clean, higher_is_better, label, rank
from edm2core.report.seeds import SeedTable

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "x": "✖", "star": "★", "triangle-down": "▼", "cross": "✚"}
CURVES = {  # of a training: title, digits, what it is
    "loss": (
        "Training loss",
        ".4~f",
        "Mean over the steps since the point before; the learned log-variance is part of it, so it may be negative. "
        "A short vertical line marks where training was stopped and continued.",
    ),
    "lr": ("Learning rate", ".3~g", "At the step of each point."),
    "relative_update": ("Relative update size", ".3~g", "‖Δw‖ / ‖w‖ of all learned maps together, in the step of each point."),
}
POINTS = 600  # most points of a training curve: what a screen can show


@dataclass(frozen=True)
class Figure:
    """One drawing: plotly's `data` and `layout`, and words for those who cannot see it."""

    id: str
    title: str
    caption: str
    plot: dict[str, Any]
    log: bool = False  # whether a logarithmic vertical axis makes sense

    @property
    def by_epoch(self) -> bool:
        """Whether epochs run along it, which a logarithmic axis may spread better."""
        return bool(self.plot["layout"]["xaxis"]["title"]["text"] == "epoch")

    @property
    def legend(self) -> list[dict[str, Any]]:
        """What stands beside the drawing for each line: its name, colour, dash and symbol."""
        lines = {
            trace["name"]: {
                "name": trace["name"],
                "color": trace["meta"]["color"],
                "dash": trace["line"]["dash"],
                "symbol": SYMBOLS[trace["marker"]["symbol"]] if "markers" in trace["mode"] else "",
            }
            for trace in self.plot["data"]
            if "line" in trace
        }
        return list(lines.values())  # once, though an epoch each may have a trace


@dataclass(frozen=True)
class Styles:
    """Colour by recipe, dash by seed, symbol by average, the same in every figure; a lone average leaves the symbol to the recipe."""

    recipes: list[str]
    seeds: list[int]
    emas: list[str]

    @classmethod
    def of(cls, report: Report) -> "Styles":
        subjects = [result.task.subject for result in report.results.values()]

        def values(name: str) -> list[Any]:
            return list(dict.fromkeys(getattr(s, name) for s in subjects if s.recipe and getattr(s, name) != ""))

        return cls(values("recipe"), sorted(values("seed")), values("ema"))

    def variant(self, seed: int, ema: str = "") -> str:
        """Seed and average, where the experiment has several."""
        parts = [f"seed {seed}" if len(self.seeds) > 1 else "", f"EMA {ema}" if ema and len(self.emas) > 1 else ""]
        return " · ".join(part for part in parts if part)

    def name(self, recipe: str, seed: int, ema: str = "") -> str:
        return " · ".join(part for part in (recipe, self.variant(seed, ema)) if part)

    def trace(self, recipe: str, seed: int, ema: str = "") -> dict[str, Any]:
        number = self.recipes.index(recipe)
        symbol = self.emas.index(ema) if ema and len(self.emas) > 1 else number
        return {
            "type": "scatter",
            "name": self.name(recipe, seed, ema),
            "meta": {"color": number, "recipe": recipe},
            "line": {"width": 2, "dash": DASHES[self.seeds.index(seed) % len(DASHES)]},
            "marker": {"size": 8, "symbol": list(SYMBOLS)[symbol % len(SYMBOLS)]},
        }


def metric_figures(rows: Iterable[Row], styles: Styles) -> list[Figure]:
    """One figure for each data set, metric and protocol: its value against the epoch, a line for each recipe, seed and average."""
    groups: dict[tuple[str, str, str], dict[tuple[str, int, str], dict[int, list[float]]]] = {}
    for row in rows:
        if row.recipe is None or row.epoch is None or row.seed is None or row.value is None:
            continue
        lines = groups.setdefault((row.dataset, row.metric, row.protocol), {})
        lines.setdefault((row.recipe, row.seed, row.ema or ""), {}).setdefault(row.epoch, []).append(row.value)
    datasets = {dataset for dataset, _, _ in groups}
    figures = []
    for number, ((dataset, metric, protocol), lines) in enumerate(sorted(groups.items(), key=lambda g: (rank(g[0][1]), g[0]))):
        traces = [
            styles.trace(*who)
            | {"mode": "lines+markers", "x": sorted(points), "y": [fmean(points[epoch]) for epoch in sorted(points)]}
            | {"hovertemplate": "%{y:.4~g}"}
            for who, points in lines.items()
        ]
        title = label(metric) + (f" · {dataset}" if len(datasets) > 1 else "")
        caption = f"{better(metric).capitalize()} is better. {_sentence(protocol)}"
        figures.append(Figure(f"metric-{number}", title, caption, plot(traces, "epoch"), log=not higher_is_better(metric)))
    return figures


def seed_figures(tables: Mapping[str, SeedTable], styles: Styles) -> list[Figure]:
    """One figure for each measure: every recipe's mean over its training seeds against the epoch, and its standard deviation."""
    figures = []
    for number, (title, table) in enumerate(tables.items()):
        traces = []
        for recipe, line in table.lines.items():
            found = [line[epoch] for epoch in sorted(line)]
            trace = styles.trace(recipe, styles.seeds[0]) | {"name": recipe, "mode": "lines+markers"}
            points = {"x": [spread.epoch for spread in found], "y": [spread.mean for spread in found]}
            bars = {"type": "data", "array": [spread.deviation or 0.0 for spread in found], "thickness": 1.5, "width": 5}
            traces.append(trace | points | {"error_y": bars, "hovertemplate": "%{y:.4~g} ± %{error_y.array:.2~g}"})
        caption = "Mean over the training seeds; bars are one standard deviation between them."
        log = not higher_is_better(table.metric)
        figures.append(Figure(f"seeds-{number}", title, caption, plot(traces, "epoch"), log=log))
    return figures


def sweep_figures(sweeps: Iterable[Sweep], styles: Styles) -> list[Figure]:
    """One figure for each data set, metric and protocol: its value against σ_rel, a line for each training at its last such epoch."""
    groups: dict[tuple[str, str, str], dict[tuple[str, int], Sweep]] = {}
    for sweep in sorted(sweeps, key=lambda sweep: sweep.epoch):
        groups.setdefault((sweep.dataset, sweep.metric, sweep.protocol), {})[sweep.recipe, sweep.seed] = sweep
    figures = []
    for number, ((dataset, metric, protocol), lines) in enumerate(groups.items()):
        traces = []
        for (recipe, seed), sweep in sorted(lines.items(), key=lambda line: (styles.recipes.index(line[0][0]), line[0][1])):
            trace = styles.trace(recipe, seed)
            widths, values = list(sweep.values), list(sweep.values.values())
            traces.append(trace | {"mode": "lines+markers", "x": widths, "y": values, "hovertemplate": "%{y:.4~g}"})
            mark = {"name": trace["name"], "meta": trace["meta"], "type": "scatter", "mode": "markers", "hoverinfo": "skip"}
            marker = {"symbol": "circle-open", "size": 18, "line": {"width": 2}}
            traces.append(mark | {"x": [sweep.best[0]], "y": [sweep.best[1]], "marker": marker})
            if sweep.fixed is not None:
                level = {"mode": "lines", "x": [widths[0], widths[-1]], "y": [sweep.fixed] * 2, "hovertemplate": "%{y:.4~g}"}
                traces.append(trace | level | {"name": f"{trace['name']} · fixed EMA", "line": {"width": 1, "dash": "dot"}})
        epochs = sorted({sweep.epoch for sweep in lines.values()})
        caption = (
            f"A ring marks each training's best; {better(metric)} is better. At epoch {', '.join(map(str, epochs))}. {_sentence(protocol)}"
        )
        title = label(metric) + (f" · {dataset}" if len({key[0] for key in groups}) > 1 else "")
        figures.append(Figure(f"sweep-{number}", title, caption, plot(traces, "relative width σ_rel"), log=not higher_is_better(metric)))
    return figures


def training_figures(report: Report, styles: Styles) -> list[Figure]:
    """Loss, learning rate and size of the updates along every training whose curve is in the store."""
    curves = [(report.results[ref].task.subject, lines) for ref, lines in report.curves.items() if lines]
    figures = []
    merged = max((-(-len(lines) // POINTS) for _, lines in curves), default=1)
    for name, (title, digits, words) in CURVES.items():
        traces = []
        for subject, lines in curves:
            points = [(line["epoch"], clean(line.get(name))) for line in lines if "epoch" in line and name in line]
            x, y = _thin([(epoch, value) for epoch, value in points if value is not None])
            trace = styles.trace(*subject.training) | {"mode": "lines", "x": x, "y": y}
            if name == "lr" and len(styles.seeds) == 1:  # schedules of different recipes often coincide
                trace["line"] = trace["line"] | {"dash": DASHES[styles.recipes.index(subject.recipe) % len(DASHES)]}
            traces.append(trace | {"hovertemplate": f"%{{y:{digits}}}"})
            if name == "loss" and x:
                traces += _restarts(lines, x, y, trace)
        if any(trace["x"] for trace in traces):
            caption = words + (f" Long curves are shown in means of up to {merged} logged values." if merged > 1 else "")
            figures.append(Figure(f"training-{name}", title, caption, plot(traces, "epoch"), log=name != "loss"))
    return figures


def probe_maps(report: Report, styles: Styles) -> list[Figure]:
    """The probes' accuracy over noise level, block and epoch as one heat map, where probes tried more than one cell.

    It holds all trainings and epochs in one colour scale, with only the last epoch of the first visible; `meta` says which trace is whose.
    """
    found: dict[tuple[str, int], Result] = {}
    for result in report.of_stage("probe"):
        subject = result.task.subject
        if subject.recipe and len(result.metadata.get("cells") or []) > 1:
            found[styles.name(*subject.training, subject.ema), subject.epoch] = result
    return [_surface(found)] if found else []


def _surface(found: Mapping[tuple[str, int], Result]) -> Figure:
    all_cells = [cell for result in found.values() for cell in result.metadata["cells"]]
    levels = sorted({cell["t"] for cell in all_cells})
    blocks = sorted({cell["block"] for cell in all_cells}, key=lambda block: (len(block), block))
    held_out = all(cell.get("validation_accuracy") is not None for cell in all_cells)
    shown = "validation_accuracy" if held_out else "test_accuracy"
    values = [v for cell in all_cells if (v := clean(cell.get(shown))) is not None]
    scale = {"colorscale": "Cividis", "zmin": min(values, default=0.0), "zmax": max(values, default=100.0)}
    first = next(iter(found))[0]
    last = max(epoch for who, epoch in found if who == first)
    hover = "%{y}, %{x}: %{z:.2f} %" + (" held out, %{customdata} % test" if held_out else " test") + "<extra></extra>"
    traces: list[dict[str, Any]] = []
    for (who, epoch), result in sorted(found.items(), key=lambda item: item[0][1]):
        cells = {(cell["t"], cell["block"]): cell for cell in result.metadata["cells"]}
        held, test = (
            [[clean(cells.get((t, block), {}).get(name)) for block in blocks] for t in levels] for name in (shown, "test_accuracy")
        )
        mine = {"meta": {"epoch": epoch, "variant": who}, "visible": (who, epoch) == (first, last)}
        traces.append(
            {"type": "heatmap", "x": blocks, "y": [f"t = {t}" for t in levels], "z": held, "customdata": test}
            | {"hovertemplate": hover, "texttemplate": "%{z:.1f}" if len(blocks) <= 8 else ""}
            | {"colorbar": {"title": {"text": "%"}, "thickness": 12}}
            | scale
            | mine
        )
        if chosen := result.metadata.get("chosen"):
            marker = {"symbol": "square-open", "size": 30, "color": "#d1006c", "line": {"width": 3}}
            place = {"x": [chosen["block"]], "y": [f"t = {chosen['t']}"]}
            traces.append({"type": "scatter", "mode": "markers", "marker": marker, "hoverinfo": "skip"} | place | mine)
    layout = plot([], "decoder block")["layout"] | {"hovermode": "closest"}
    caption = (
        "Accuracy on images held out of the training set. The square marks the cell chosen on them; its test accuracy is in the table."
        if held_out
        else "Accuracy on the test images, on which the square's cell was chosen: the protocol holds nothing out."
    )
    return Figure("map", "Probe accuracy", caption, {"data": traces, "layout": layout})


def _restarts(lines: list[dict[str, Any]], x: list[float], y: list[float], trace: dict[str, Any]) -> list[dict[str, Any]]:
    last = next(line for line in reversed(lines) if "epoch" in line)
    per_step = last["epoch"] / last["step"] if last.get("step") else 0.0
    restarts = [line for line in lines if line.get("restart")]
    if not restarts:
        return []
    marks = [line["step"] * per_step for line in restarts]
    words = [f"under other science ({brief(line['science'])}), " if "science" in line else "" for line in restarts]
    heights = [y[min(range(len(x)), key=lambda i: abs(x[i] - mark))] for mark in marks]
    marker = {"symbol": ["star" if word else "line-ns-open" for word in words], "size": 14, "line": {"width": 2}}
    return [
        {"type": "scatter", "mode": "markers", "x": marks, "y": heights, "name": trace["name"], "meta": trace["meta"]}
        | {"marker": marker, "customdata": words, "hovertemplate": "%{customdata}continued at epoch %{x:.4~g}"}
    ]


def _thin(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most POINTS points, each the mean of as many neighbours."""
    merged = -(-len(points) // POINTS) or 1
    groups = [points[start : start + merged] for start in range(0, len(points), merged)]
    return [group[-1][0] for group in groups], [fmean(value for _, value in group) for group in groups]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def plot(traces: list[dict[str, Any]], x: str) -> dict[str, Any]:
    """Traces over a common horizontal axis called `x`, in the page's manner."""
    layout = {
        "xaxis": {"title": {"text": x}, "unifiedhovertitle": {"text": f"{x} %{{x:.4~g}}"}, "automargin": True, "zeroline": False},
        "yaxis": {"automargin": True, "zeroline": False},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "showlegend": False,  # the page has its own, which a keyboard reaches
        "hovermode": "x unified",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    return {"data": traces, "layout": layout}
