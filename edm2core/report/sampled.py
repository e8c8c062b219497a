"""The same snapshots sampled in several ways: what groups such results, whose they are, and by how much two ways differ."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Generic, NamedTuple, TypeVar

from edm2core.plan.manifest import Ref
from edm2core.report.collect import Report, Result
from edm2core.report.digits import percent, places, rounded
from edm2core.report.evaluations import evaluations_of
from edm2core.report.protocol import apart
from edm2core.report.results import Row, best_of, higher_is_better
from edm2core.report.statistics import independent_ratio, mean_interval, paired_ratio

Found = Mapping[Row, Result]
Whose = tuple[str, str, int, str, str, str, int | None]
"""Data set, recipe without what is swept, epoch, average, metric, protocol, number of images."""
Ways = dict[str, dict[int, dict[Row, Result]]]
"""By recipe of the experiment, which is one way to sample, and training seed: the rows of its draws."""


class Measured(NamedTuple):
    """A metric of one training's samples by one way to sample."""

    value: float  # the mean of its draws
    error: float | None  # its standard error from the sampling of images
    draws: tuple[tuple[float, tuple[float, ...]], ...]  # of each draw its value, and the values without each block of its images
    results: tuple[Ref, ...]  # that it is of, one a draw


class Change(NamedTuple):
    """By how much a metric by one way to sample differs from that by another on the same snapshots, as a share of the other's."""

    share: float  # 0.02 is 2 % more
    interval: tuple[float, float] | None  # at 95 %; None where the metric has no error and there is one seed
    over: str  # what the interval is over: "seeds" or "images"; empty without one

    @property
    def words(self) -> str:
        """It with its interval: +1.2 %, 95 % interval −0.4 to +2.8 % over images."""
        if self.interval is None:
            return f"{percent(self.share)} %, without an interval"
        low, high = map(percent, self.interval)
        return f"{percent(self.share)} %, 95 % interval {low} to {high} % over {self.over}"


@dataclass(frozen=True)
class Way:
    """One way to sample: how good its images are, and how many evaluations of networks an image takes."""

    recipe: str  # its name in the experiment
    evaluations: int  # guided ones counted twice; as counted where own code decides it
    by_seed: Mapping[int, Measured]

    @cached_property
    def value(self) -> float:
        """The mean over training seeds."""
        return fmean(measured.value for measured in self.by_seed.values())

    @cached_property
    def error(self) -> float | None:
        """The mean's standard error from the sampling of images alone."""
        return mean_error([measured.error for measured in self.by_seed.values()])


W = TypeVar("W", bound=Way)


@dataclass(frozen=True)
class Sampled(Generic[W]):
    """A metric of one recipe's snapshots at one epoch, which were sampled in several ways."""

    dataset: str
    recipe: str  # without what is swept
    epoch: int
    ema: str
    metric: str
    protocol: str
    n: int | None
    points: tuple[W, ...]

    @property
    def whose(self) -> Whose:
        return self.dataset, self.recipe, self.epoch, self.ema, self.metric, self.protocol, self.n

    @property
    def title(self) -> str:
        """What it is of: digits/C @ 20, EMA 0.05."""
        return f"{self.recipe} @ {self.epoch}" + ("" if self.ema in ("", "fixed") else f", EMA {self.ema}")

    @property
    def places(self) -> int:
        """Decimals of its values, as many as their errors justify."""
        return places((point.value for point in self.points), (point.error for point in self.points))

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for point in self.points for seed in point.by_seed})

    def best_among(self, points: Sequence[W]) -> W:
        """Of these points the one with the best value."""
        return points[best_of(self.metric, {number: point.value for number, point in enumerate(points)})]

    def worse(self, share: float) -> float:
        """A change as a share by which it is worse; negative where it is better."""
        return -share if higher_is_better(self.metric) else share

    def bias(self, chosen: Change, again: Change) -> float:
        """By how much less worse what was picked looked when it was picked than drawn again: the luck of picking, as a share."""
        return self.worse(again.share) - self.worse(chosen.share)

    def redrawn(self, chosen: Change, again: Change) -> str:
        """What a change is worth of which both sides were drawn again, in words."""
        bias = self.bias(chosen, again)
        points = rounded(abs(100 * bias), 1)
        luck = f"had flattered it by {points} points" if bias > 0 else f"had not flattered it ({points} points the other way)"
        return f"Both drawn again with other noise: {again.words}; picking it from {len(self.points)} {luck}."


def change_of(before: Mapping[int, Measured], after: Mapping[int, Measured]) -> Change | None:
    """How `after` differs from `before`, by training seed: over the seeds where both have two or more, else over images.

    None where a value is not above 0, so that there is no ratio.
    """
    both = [(before[seed], after[seed]) for seed in before if seed in after]
    if not both or any(measured.value <= 0 for pair in both for measured in pair):
        return None
    logs = [math.log(other.value / one.value) for one, other in both]
    if len(both) > 1:
        return _change(fmean(logs), mean_interval(logs), "seeds")
    one, other = both[0]
    around = paired_ratio(list(zip(one.draws, other.draws, strict=False)))
    if around is None and one.error is not None and other.error is not None:
        around = independent_ratio((one.value, one.error), (other.value, other.error))
    return _change(logs[0], around, "images")


def mean_error(errors: Sequence[float | None]) -> float | None:
    """The standard error of the mean of independent values; None where one of theirs is not known."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(known) if known and len(known) == len(errors) else None


def measured(by_seed: Mapping[int, Found]) -> dict[int, Measured]:
    """What the rows of each training seed's draws measure."""
    return {seed: _measured(found) for seed, found in sorted(by_seed.items())}


def _measured(found: Found) -> Measured:
    draws = sorted(found.items(), key=lambda item: item[0].draw or 0)
    left_out = [tuple(result.metadata.get("left_out", {}).get(row.metric, ())) for row, result in draws]
    values = [row.value for row, _ in draws if row.value is not None]
    error = mean_error([row.error for row, _ in draws])
    return Measured(fmean(values), error, tuple(zip(values, left_out, strict=True)), tuple(result.task.ref for _, result in draws))


def _change(log: float, around: tuple[float, float] | None, over: str) -> Change:
    interval = (math.expm1(around[0]), math.expm1(around[1])) if around else None
    return Change(math.expm1(log), interval, over if around else "")


def grouped(report: Report, found: Found, swept: Callable[[Result], Sequence[str]], *, beside_unguided: bool = False) -> dict[Whose, Ways]:
    """The rows whose samples differ in swept settings alone, together; those of which `swept` names no setting are left out."""
    groups: dict[Whose, Ways] = {}
    for row, result in found.items():
        point, settings = result.task.subject.sweep, swept(result)
        samples = report.input(result, "samples")
        if not settings or point is None or row.value is None or row.seed is None or samples is None or evaluations_of(samples) is None:
            continue
        protocol = apart(report, result, row.metric, settings, beside_unguided=beside_unguided)
        whose = (row.dataset, point.without(settings), row.epoch or 0, row.ema or "", row.metric, protocol, row.n)
        groups.setdefault(whose, {}).setdefault(row.recipe or "", {}).setdefault(row.seed, {})[row] = result
    return groups
