"""Which classes a probe takes for which: its confusion matrices as one figure."""

from html import escape
from typing import Any

from edm2core.report.collect import Report, Result
from edm2core.report.figures import Figure, Styles, plot

MOST_CELLS = 200_000  # on a page, later epochs first: a megabyte
NUMBERED = 12  # classes up to which every cell shows its count


def confusion_figures(report: Report, styles: Styles) -> list[Figure]:
    """Test images by true and predicted class at every probe's chosen cell, mean over its seeds, of all trainings and epochs in one figure.

    Only the last epoch of the first training is visible; `meta` says which trace is whose. None where no probe has a matrix.
    """
    kept: list[tuple[str, int, Result]] = []
    cells = 0
    for epoch, result in sorted(_probes(report), key=lambda found: -found[0]):
        cells += len(report.confusions[result.task.ref]["classes"]) ** 2
        if cells <= MOST_CELLS:
            subject = result.task.subject
            kept.append((styles.name(*subject.training, subject.ema), epoch, result))
    if not kept:
        return []
    order = {result.task.ref: number for number, (_, result) in enumerate(_probes(report))}
    kept.sort(key=lambda found: order[found[2].task.ref])
    first = kept[0][0]
    last = max(epoch for who, epoch, _ in kept if who == first)
    traces = [
        _trace(report.confusions[result.task.ref]) | {"meta": {"epoch": epoch, "variant": who}, "visible": (who, epoch) == (first, last)}
        for who, epoch, result in kept
    ]
    layout = plot([], "predicted class")["layout"] | {"hovermode": "closest"}
    layout["xaxis"] |= {"type": "category"}  # classes may be called 0, 1, 2
    layout["yaxis"] |= {"type": "category", "title": {"text": "true class"}, "autorange": "reversed"}
    caption = "Share of each true class's test images by the class that the probe predicts; the diagonal is what it gets right."
    found = [report.confusions[result.task.ref] for _, _, result in kept]
    caption += f" {_of_seeds(min(each['seeds'] for each in found), max(each['asked'] for each in found))}"
    return [Figure("confusion-matrix", "Confusion of classes", caption, {"data": traces, "layout": layout})]


def _probes(report: Report) -> list[tuple[int, Result]]:
    """The snapshots' probes that have a matrix, by epoch and in the plan's order."""
    probes = (result for result in report.of_stage("probe") if result.task.ref in report.confusions)
    return [(result.task.subject.epoch, result) for result in probes if result.task.subject.recipe]


def _trace(found: dict[str, Any]) -> dict[str, Any]:
    names, seeds = _told_apart([escape(str(name), quote=False) for name in found["classes"]]), found["seeds"]  # plotly.js reads tags
    shares = [[round(100 * count / (sum(row) or 1), 2) for count in row] for row in found["confusion"]]
    counts = [[count if seeds == 1 else round(count / seeds, 1) for count in row] for row in found["confusion"]]
    return {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": shares,
        "text": counts,
        "zmin": 0,
        "zmax": 100,
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "%"}, "thickness": 12},
        "texttemplate": "%{text}" if len(names) <= NUMBERED else "",
        "hovertemplate": "%{y} taken for %{x}: %{z} %, %{text} images<extra></extra>",
    }


def _of_seeds(seeds: int, asked: int) -> str:
    """Which of the probe's seeds the matrices are of."""
    if asked == 1:
        return "Of one probe seed."
    return f"Mean over {asked} probe seeds." if seeds == asked else "Of the first probe seed, where no more is recorded."


def _told_apart(names: list[str]) -> list[str]:
    """Names of which none is there twice: an axis of categories would lay the two over each other."""
    return [name if names.count(name) == 1 else f"{name} ({names[:number].count(name) + 1})" for number, name in enumerate(names)]
