"""Sample grids for the page: for each epoch one image a recipe, all from the same latents."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edm2core.plan.manifest import Ref
from edm2core.report.collect import Report, Result
from edm2core.report.figures import Styles

NEIGHBOURS_BUDGET = 800_000
BUDGET = 6_000_000  # bytes of PNG on the page: with base64 and all else it stays well below 15 MB
FEW = 5  # epochs that are worth more than further trainings
COLUMNS = 8  # images in a row


@dataclass(frozen=True)
class Picture:
    """A grid as a data URI, with its size in pixels; without `uri`, why there is none."""

    epoch: int
    uri: str
    width: int
    height: int
    missing: str = ""
    names: tuple[str, ...] = ()  # of its rows, where each is of one class

    @property
    def rows(self) -> int:
        return max(1, round(COLUMNS * self.height / self.width))


@dataclass(frozen=True)
class Strip:
    """One column of the samples: a training's grids and interpolations along the epochs."""

    name: str
    recipe: str
    color: int
    variant: str  # seed and average, where there are several
    kinds: dict[str, list[Picture]]


@dataclass(frozen=True)
class Samples:
    """The samples of one data set; what is left out did not fit on the page."""

    dataset: str
    epochs: list[int]
    variants: list[str]
    strips: list[Strip]
    left_out: list[int]
    left_out_variants: list[str]

    @property
    def other(self) -> int:
        """The number of the first strip of another recipe than the first, to stand beside it."""
        return next((i for i, strip in enumerate(self.strips) if strip.recipe != self.strips[0].recipe), 1)

    @property
    def latest(self) -> int:
        """The number of the last epoch that has pictures; a run that goes on has none yet of later ones."""
        shown = [i for strip in self.strips for i, picture in enumerate(strip.kinds["grid"]) if picture.uri]
        return max(shown, default=len(self.epochs) - 1)

    @property
    def interpolated(self) -> bool:
        return self._any("interpolations")

    @property
    def by_class(self) -> bool:
        return self._any("classes")

    def _any(self, kind: str) -> bool:
        return any(picture.uri for strip in self.strips for picture in strip.kinds[kind])


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
    """The samples of every data set, with fewer epochs and then fewer trainings where all would make the page too large."""
    first = [r for r in report.of_stage("sample") if not r.task.subject.draw]
    shown = _fitting(report, styles, first)
    return [_dataset(report, styles, name, [r for r in first if r.task.subject.dataset == name], shown) for name in _datasets(first)]


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
        title = styles.name(*subject.training, subject.ema)
        color = styles.recipes.index(subject.recipe)
        ratios = metadata["neighbours"]["ratios"]
        found.append(Neighbours(title, color, _embedded(png, subject.epoch), share, metadata["n"], metadata["extractor"], ratios[0]))
    return found


def _dataset(report: Report, styles: Styles, name: str, results: list[Result], shown: set[Ref]) -> Samples:
    columns: dict[tuple[str, int, str], dict[int, Result]] = {}
    for result in results:
        subject = result.task.subject
        columns.setdefault((*subject.training, subject.ema), {})[subject.epoch] = result
    wanted = sorted({result.task.subject.epoch for result in results})
    epochs = [e for e in wanted if any(r.task.ref in shown for found in columns.values() for epoch, r in found.items() if epoch == e)]
    kept = {who: found for who, found in columns.items() if any(result.task.ref in shown for result in found.values())}
    prepared = next((r for r in report.of_stage("prepare") if r.task.subject.dataset == name), None)
    classes = [str(each) for each in prepared.metadata.get("classes", ())] if prepared else []
    strips = [
        Strip(
            styles.name(*who),
            who[0],
            styles.recipes.index(who[0]),
            styles.variant(*who[1:]),
            {
                "grid": [_picture(report.grids, found.get(e), e) for e in epochs],
                "interpolations": [_picture(report.interpolations, found.get(e), e) for e in epochs],
                "classes": [named(_picture(report.by_class, found.get(e), e), classes) for e in epochs],
            },
        )
        for who, found in kept.items()
    ]
    variants = list(dict.fromkeys(strip.variant for strip in strips))
    every = dict.fromkeys(styles.variant(*who[1:]) for who in columns)
    return Samples(name, epochs, variants, strips, [e for e in wanted if e not in epochs], [v for v in every if v not in variants])


def _picture(pictures: Mapping[Ref, bytes], result: Result | None, epoch: int) -> Picture:
    if result is None:
        return Picture(epoch, "", 1, 1, f"not asked for at epoch {epoch}")
    png = pictures.get(result.task.ref)
    if png is None:
        return Picture(epoch, "", 1, 1, result.outcome.state if result.manifest is None else "none stored with these samples")
    return _embedded(png, epoch)


def named(picture: Picture, classes: Sequence[str]) -> Picture:
    """The picture with the names of its rows: those of all classes, or of as many as it has, evenly spaced."""
    rows = picture.rows
    if not picture.uri or not 1 < rows <= len(classes):
        return picture
    return replace(picture, names=tuple(classes[round(row * (len(classes) - 1) / (rows - 1))] for row in range(rows)))


def _embedded(png: bytes, epoch: int) -> Picture:
    width, height = struct.unpack(">II", png[16:24])
    return Picture(epoch, "data:image/png;base64," + base64.b64encode(png).decode(), width, height)


def _fitting(report: Report, styles: Styles, results: list[Result]) -> set[Ref]:
    """The samples whose pictures fit: evenly spaced epochs, the last among them; where few are left, of fewer seeds and averages."""
    if not results:
        return set()
    epochs = sorted({result.task.subject.epoch for result in results}, reverse=True)
    variants = list(dict.fromkeys(styles.variant(result.task.subject.seed, result.task.subject.ema) for result in results))
    pictures = (report.grids, report.interpolations, report.by_class)
    size = {r.task.ref: sum(len(kind.get(r.task.ref, b"")) for kind in pictures) for r in results}
    longest = [stride for stride in range(1, len(epochs) + 1) if len(epochs[::stride]) >= min(FEW, len(epochs))]
    choices = [(stride, len(variants)) for stride in longest]
    choices += [(longest[-1], number) for number in range(len(variants) - 1, 0, -1)]
    choices += [(stride, 1) for stride in range(longest[-1] + 1, len(epochs) + 1)]
    for stride, number in choices:
        chosen = {
            result.task.ref
            for result in results
            if result.task.subject.epoch in epochs[::stride]
            and styles.variant(result.task.subject.seed, result.task.subject.ema) in variants[:number]
        }
        if sum(size[ref] for ref in chosen) <= BUDGET:
            return chosen
    return set()


def _datasets(results: list[Result]) -> list[str]:
    return list(dict.fromkeys(result.task.subject.dataset for result in results))
