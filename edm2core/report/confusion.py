"""Which classes a probe takes for which: its confusion matrices as one figure."""

from typing import Any

from edm2core.report.collect import Report, Result
from edm2core.report.figures import Figure, Styles
from edm2core.report.figures.figure import Cells
from edm2core.report.figures.maps import axis, choices, heat

MOST_CELLS = 200_000  # on a page, later epochs first: a megabyte
SHARE = "share of the true class, %"
TILTED = 6  # classes beyond which their names are written slantwise


def confusion_figures(report: Report, styles: Styles) -> list[Figure]:
    """Test images by true and predicted class at every probe's chosen cell, mean over its seeds: all trainings and epochs in one figure.

    None where no probe has a matrix.
    """
    shown: list[Result] = []
    cells = 0
    for _, result in sorted(_probes(report), key=lambda found: -found[0]):
        cells += len(report.confusions[result.task.ref]["classes"]) ** 2
        if cells <= MOST_CELLS:
            shown.append(result)
    if not shown:
        return []
    order = {result.task.ref: number for number, (_, result) in enumerate(_probes(report))}
    shown.sort(key=lambda result: order[result.task.ref])
    rows = [row for result in shown for row in _rows(result, report.confusions[result.task.ref], styles)]
    true, predicted = (axis(field, f"{field} class", list(dict.fromkeys(row[field] for row in rows))) for field in ("true", "predicted"))
    predicted["axis"] |= {"labelAngle": -45} if len(predicted["sort"]) > TILTED else {}
    told = [
        {"field": "share", "title": "share of the true class, %", "format": ".4~g"},
        {"field": "images", "title": "images", "format": ".4~g"},
    ]
    spec = heat(predicted, true, "share", "share of the true class, %", (0.0, 100.0), ".3~g", told)
    caption = (
        "Share of each true class's test images that the probe predicts as each class, in percent. The diagonal is what it gets right."
    )
    matrices = [report.confusions[result.task.ref] for result in shown]
    caption += f" {_of_seeds(min(each['seeds'] for each in matrices), max(each['asked'] for each in matrices))}"
    side = min(520, max(200, 44 * len(true["sort"])))
    return [Figure("confusion-matrix", "Confusion of classes", caption, rows, spec, choices=choices(rows), shape=(side, side))]


def _probes(report: Report) -> list[tuple[int, Result]]:
    """The snapshots' probes that have a matrix, by epoch and in the plan's order."""
    probes = (result for result in report.of_stage("probe") if result.task.ref in report.confusions)
    return [(result.task.subject.epoch, result) for result in probes if result.task.subject.recipe]


def _rows(result: Result, matrix: dict[str, Any], styles: Styles) -> Cells:
    subject, seeds = result.task.subject, matrix["seeds"]
    who = {"training": styles.name(*subject.training, subject.ema), "epoch": subject.epoch}
    names = _told_apart([str(name) for name in matrix["classes"]])
    return [
        {**who, "true": true, "predicted": predicted, "share": round(100 * count / (sum(counts) or 1), 2), "images": _mean(count, seeds)}
        for true, counts in zip(names, matrix["confusion"], strict=True)
        for predicted, count in zip(names, counts, strict=True)
    ]


def _mean(count: int, seeds: int) -> float:
    return count if seeds == 1 else round(count / seeds, 1)


def _of_seeds(seeds: int, asked: int) -> str:
    """Which of the probe's seeds the matrices are of."""
    if asked == 1:
        return "Values are of one probe seed."
    return f"Mean over {asked} probe seeds." if seeds == asked else "Values are of the first probe seed, since no more is recorded."


def _told_apart(names: list[str]) -> list[str]:
    """Names of which none is there twice: an axis of categories would lay the two over each other."""
    return [name if names.count(name) == 1 else f"{name} ({names[:number].count(name) + 1})" for number, name in enumerate(names)]
