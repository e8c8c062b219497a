"""What guidance does: a metric by weight, guide and interval on the same snapshots, and what the best is worth drawn again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from edm2core.report.collect import Report, Result
from edm2core.report.evaluations import evaluations_of, sampler_of
from edm2core.report.protocol import guide_of
from edm2core.report.results import Row, best_of, higher_is_better, label, rank, rows
from edm2core.report.sampled import Found, Sampled, Ways, Whose, grouped

GUIDANCE = "sample.guidance"


@dataclass(frozen=True)
class Point:
    """A metric of samples that are guided in one way."""

    recipe: str  # its name in the experiment
    weight: float
    guide: str  # in words
    interval: str  # likewise
    evaluations: int  # of networks, for an image
    by_seed: Mapping[int, tuple[Result, ...]]  # what it was measured by, one result a draw
    values: Mapping[int, float]  # training seed → the mean of its draws
    again: tuple[float, ...] = ()  # each training seed's mean of fresh draws, if it was drawn again

    @property
    def how(self) -> str:
        """Guide and interval: points that differ in the weight alone are one curve."""
        return f"{self.guide}, {self.interval}"

    @cached_property
    def value(self) -> float:
        """The mean over training seeds."""
        return fmean(self.values.values())


@dataclass(frozen=True)
class GuidanceSweep(Sampled):
    """A metric by how samples were guided, of one recipe's snapshots at one epoch."""

    points: tuple[Point, ...]

    @cached_property
    def best(self) -> Point:
        return self.points[best_of(self.metric, {number: point.value for number, point in enumerate(self.points)})]

    @property
    def sentence(self) -> str:
        """Which guidance is best, and what it is worth drawn again."""
        best, name = self.best, label(self.metric)
        found = (
            f"{name} is best with weight {best.weight:g}, {best.how}: {best.value:.3g}, "
            f"at {best.evaluations} network evaluations of an image, guided ones counted twice."
        )
        if not best.again:
            return f"{found} The best of {len(self.points)} looks better than it is: recheck: 2 in the experiment draws it again."
        again = fmean(best.again)
        luck = best.value - again if higher_is_better(self.metric) else again - best.value
        flattered = f"had flattered it by {luck:.2g}" if luck > 0 else "had not flattered it"
        return f"{found} Drawn again with other noise it has {again:.3g}; picking it from {len(self.points)} {flattered}."


def guidance_sweeps(report: Report, found: Found | None = None) -> list[GuidanceSweep]:
    """A report's sweeps over guidance: the last epoch first, and those metrics first that a reader looks for first."""
    fresh = _groups(report, rows(report, rechecks=True))
    sweeps = []
    for whose, ways in _groups(report, rows(report) if found is None else found).items():
        again = fresh.get(whose, {})
        points = [_point(report, recipe, own, again.get(recipe, {})) for recipe, own in ways.items()]
        sweeps.append(GuidanceSweep(*whose, tuple(sorted(points, key=lambda point: (point.how, point.weight)))))
    several = [sweep for sweep in sweeps if len(sweep.points) > 1]
    return sorted(several, key=lambda sweep: (-sweep.epoch, rank(sweep.metric), sweep.dataset, sweep.recipe))


def picked(report: Report) -> list[tuple[Result, ...]]:
    """The results of each recipe's best guidance at its last epoch, a draw each, by the metric that stands first; one entry a seed."""
    return [results for sweep in leading(guidance_sweeps(report)) for results in sweep.best.by_seed.values()]


def leading(sweeps: list[GuidanceSweep]) -> list[GuidanceSweep]:
    """Of each recipe and average the sweep at the last epoch by the metric that stands first, whose best is drawn again."""
    first: dict[tuple[str, str, str], GuidanceSweep] = {}
    for sweep in sweeps:
        first.setdefault((sweep.dataset, sweep.recipe, sweep.ema), sweep)
    return list(first.values())


def elsewhere_guided(report: Report, found: Found) -> dict[Row, Result]:
    """The rows without those of sweeps over guidance: in other figures and tables each way to guide would stand alone."""
    return {row: result for row, result in found.items() if not _swept(result)}


def guided_recipes(report: Report) -> set[str]:
    """The names of the recipes that are points of sweeps over guidance."""
    return {result.task.subject.recipe for result in report.results.values() if _swept(result)}


def _swept(result: Result) -> list[str]:
    """The settings of guidance that are swept, of a result of samples."""
    point = result.task.subject.sweep if "samples" in result.task.inputs else None
    return [setting for setting in point.at if setting.startswith(GUIDANCE)] if point else []


def _groups(report: Report, found: Found) -> dict[Whose, Ways]:
    def guided(result: Result) -> list[str]:
        samples = report.input(result, "samples")
        return _swept(result) if samples and sampler_of(samples.task).guidance else []

    return grouped(report, found, guided)


def _point(report: Report, recipe: str, own: Mapping[int, Found], again: Mapping[int, Found]) -> Point:
    first = next(result for of_seed in own.values() for result in of_seed.values())
    samples = report.input(first, "samples")
    assert samples is not None  # noqa: S101
    guidance, evaluations = sampler_of(samples.task).guidance, evaluations_of(samples)
    assert guidance is not None  # noqa: S101
    assert evaluations is not None  # noqa: S101
    guide = f"by {guide_of(report.plan, samples.task)}" if guidance.guide else "classifier-free"
    interval = f"σ {guidance.interval[0]:g} to {guidance.interval[1]:g}" if guidance.interval else "all σ"
    by_seed = {seed: tuple(of_seed.values()) for seed, of_seed in own.items()}
    made = Point(recipe, guidance.weight, guide, interval, evaluations, by_seed, _means(own))
    return replace(made, again=tuple(_means(again).values()))


def _means(by_seed: Mapping[int, Found]) -> dict[int, float]:
    return {seed: fmean(row.value for row in found if row.value is not None) for seed, found in by_seed.items()}
