"""Sample grids for the page: for each epoch one image a recipe, all from the same latents."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edm2core.manifest import Ref
from edm2core.report.collect import Report, Result
from edm2core.report.figures import Styles

NEIGHBOURS_BUDGET = 1_000_000
BUDGET = 5_000_000  # bytes of PNG on the page: with base64 and plotly.js it stays well below 15 MB


@dataclass(frozen=True)
class Picture:
    """A grid as a data URI, with its size in pixels; without `uri`, why there is none."""

    epoch: int
    uri: str
    width: int
    height: int
    missing: str = ""


@dataclass(frozen=True)
class Strip:
    """One column of the samples: a training's grids along the epochs."""

    title: str
    color: int
    variant: str  # seed and average, where there are several
    pictures: list[Picture]


@dataclass(frozen=True)
class Samples:
    """The samples of one data set; `left_out` are epochs that did not fit on the page."""

    dataset: str
    epochs: list[int]
    variants: list[str]
    strips: list[Strip]
    left_out: list[int]


@dataclass(frozen=True)
class Neighbours:
    """Samples beside the training images that they are nearest to, the most suspicious first."""

    title: str
    color: int
    picture: Picture
    share: float  # of the samples that are suspiciously near
    n: int
    extractor: str
    nearest: float  # the smallest ratio of the distances to the nearest and the second nearest


def samples(report: Report, styles: Styles) -> list[Samples]:
    """The samples of every data set, thinned along the epochs where they would make the page too large."""
    first = [r for r in report.of_stage("sample") if r.task.subject.get("draw", 0) == 0]
    shown = _fitting(sorted({r.task.subject["epoch"] for r in first}), {r.task.ref: r for r in first}, report.grids)
    return [_dataset(report, styles, name, [r for r in first if r.task.subject["dataset"] == name], shown) for name in _datasets(first)]


def neighbours(report: Report, styles: Styles) -> list[Neighbours]:
    """The pictures of nearest training images, as many as fit on the page."""
    found, spent = [], 0
    for ref, png in report.neighbours.items():
        spent += len(png)
        if spent > NEIGHBOURS_BUDGET:
            break
        result = report.results[ref]
        subject, metadata = result.task.subject, result.metadata
        share = next(value for name, value in metadata["values"].items() if name.startswith("memorisation"))
        title = styles.name(subject["recipe"], subject["seed"], subject["ema"])
        color = styles.recipes.index(subject["recipe"])
        ratios = metadata["neighbours"]["ratios"]
        found.append(Neighbours(title, color, _embedded(png, subject["epoch"]), share, metadata["n"], metadata["extractor"], ratios[0]))
    return found


def _dataset(report: Report, styles: Styles, name: str, results: list[Result], shown: set[int]) -> Samples:
    columns: dict[tuple[str, int, str], dict[int, Result]] = {}
    for result in results:
        subject = result.task.subject
        columns.setdefault((subject["recipe"], subject["seed"], subject["ema"]), {})[subject["epoch"]] = result
    wanted = sorted({result.task.subject["epoch"] for result in results})
    epochs = [epoch for epoch in wanted if epoch in shown]
    strips = [
        Strip(recipe, styles.recipes.index(recipe), styles.variant(seed, ema), [_picture(report, found.get(e), e) for e in epochs])
        for (recipe, seed, ema), found in columns.items()
    ]
    return Samples(name, epochs, list(dict.fromkeys(s.variant for s in strips)), strips, [e for e in wanted if e not in shown])


def _picture(report: Report, result: Result | None, epoch: int) -> Picture:
    if result is None:
        return Picture(epoch, "", 1, 1, f"not asked for at epoch {epoch}")
    png = report.grids.get(result.task.ref)
    if png is None:
        return Picture(epoch, "", 1, 1, result.outcome.state if result.manifest is None else "no image stored")
    return _embedded(png, epoch)


def _embedded(png: bytes, epoch: int) -> Picture:
    width, height = struct.unpack(">II", png[16:24])
    return Picture(epoch, "data:image/png;base64," + base64.b64encode(png).decode(), width, height)


def _fitting(epochs: list[int], results: Mapping[Ref, Result], grids: Mapping[Ref, bytes]) -> set[int]:
    """The most evenly spaced epochs, the last among them, whose grids fit into the budget."""
    size = dict.fromkeys(epochs, 0)
    for ref, result in results.items():
        size[result.task.subject["epoch"]] += len(grids.get(ref, b""))
    for stride in range(1, len(epochs) + 1):
        chosen = epochs[::-1][::stride]
        if sum(size[epoch] for epoch in chosen) <= BUDGET:
            return set(chosen)
    return set()


def _datasets(results: list[Result]) -> list[str]:
    return list(dict.fromkeys(result.task.subject["dataset"] for result in results))
