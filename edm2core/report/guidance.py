"""What guidance does: a metric by weight, guide and interval on the same snapshots, and what the best is worth drawn again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from edm2core.plan.subject import Swept
from edm2core.report.collect import Report, Result
from edm2core.report.digits import minus, rounded
from edm2core.report.evaluations import evaluations_of, sampler_of
from edm2core.report.protocol import guide_of
from edm2core.report.results import Row, rank, rows, short_label
from edm2core.report.sampled import Change, Found, Measured, Sampled, Way, Ways, Whose, change_of, grouped, measured

GUIDANCE = "sample.guidance"


@dataclass(frozen=True)
class Point(Way):
    """Samples that are guided in one way, or not at all."""

    weight: float  # 1 is without guidance
    guide: str  # in words; empty without guidance
    interval: str  # likewise
    again: Mapping[int, Measured]  # what it was measured by when it was drawn again; empty if it was not

    @property
    def how(self) -> str:
        """Guide and interval: points that differ in the weight alone are one curve."""
        return f"{self.guide}, {self.interval}" if self.guide else "unguided"

    @property
    def name(self) -> str:
        return f"weight {self.weight:g}, {self.how}" if self.guide else "no guidance"


@dataclass(frozen=True)
class GuidanceSweep(Sampled[Point]):
    """A metric by how samples were guided, of one recipe's snapshots at one epoch. The unguided samples stand first."""

    @cached_property
    def best(self) -> Point:
        return self.best_among(self.points)

    @property
    def unguided(self) -> Point | None:
        """The samples that others are held against."""
        return next((point for point in self.points if not point.guide), None)

    @property
    def curves(self) -> dict[str, list[Point]]:
        """The points of each guide and interval by ascending weight. Each curve has the unguided point, which is that of weight 1."""
        guided = dict.fromkeys(point.how for point in self.points if point.guide)
        curves = {how: [point for point in self.points if point.how == how or not point.guide] for how in guided}
        return {how: sorted(points, key=lambda point: point.weight) for how, points in curves.items()}

    def change(self, point: Point) -> Change | None:
        """How the metric differs from that without guidance. None where nothing is unguided, and where there is no ratio."""
        return change_of(self.unguided.by_seed, point.by_seed) if self.unguided else None

    @property
    def again(self) -> Change | None:
        """How the best differs from the unguided where both were drawn again."""
        return change_of(self.unguided.again, self.best.again) if self.unguided and self.best is not self.unguided else None

    @property
    def sentences(self) -> list[str]:
        """Which guidance is best, and against none; then what it takes, and what it is worth drawn again."""
        return [words for words in (self._found(), self._cost(), self._redrawn()) if words]

    @property
    def sentence(self) -> str:
        return " ".join(self.sentences)

    def _found(self) -> str:
        best, unguided = self.best, self.unguided
        found = f"{short_label(self.metric)} is best with {best.name}: {self._in_words(best.value, best.error)}"
        if unguided is None:
            return f"{found}."
        if best is unguided:
            nearest = self.best_among([point for point in self.points if point.guide])
            change = self.change(nearest)
            value = self._in_words(nearest.value, nearest.error)
            return f"{found}. The best guidance, {nearest.name}, has {value}{f' ({change.words})' if change else ''}."
        change, against = self.change(best), f"{self._in_words(unguided.value, unguided.error)} without guidance"
        if change is None:
            return f"{found}, against {against}."
        unsure = change.interval is not None and change.interval[0] <= 0 <= change.interval[1]
        return f"{found}, against {against} ({change.words}){', so no gain is shown' if unsure else ''}."

    def _cost(self) -> str:
        best, unguided = self.best, self.unguided
        instead = f" instead of {unguided.evaluations}" if unguided and best is not unguided else ""
        return f"An image takes {best.evaluations} evaluations of networks{instead}." if best.guide else ""

    def _redrawn(self) -> str:
        among, best, change = len(self.points), self.best, self.change(self.best)
        if not best.again:
            advice = "." if any(point.again for point in self.points) else ": recheck: 2 in the experiment draws it again."
            return f"The best of {among} looks better than it is{advice}"
        if change and self.again:
            return self.redrawn(change, self.again)
        again = fmean(each.value for each in best.again.values())
        luck = self.worse(again - best.value)
        flattered = f"had flattered it by {rounded(luck, self.places)}" if luck > 0 else "had not flattered it"
        return f"Drawn again with other noise it has {self._in_words(again, None)}; picking it from {among} {flattered}."

    def _in_words(self, value: float, error: float | None) -> str:
        return minus(rounded(value, self.places)) + (f" ± {rounded(error, self.places)}" if error is not None else "")


def guidance_sweeps(report: Report, found: Found | None = None) -> list[GuidanceSweep]:
    """A report's sweeps over guidance: the last epoch first, and those metrics first that a reader looks for first."""
    fresh = _groups(report, rows(report, rechecks=True))
    sweeps = []
    for whose, ways in _groups(report, rows(report) if found is None else found).items():
        again = fresh.get(whose, {})
        points = [_point(report, recipe, own, again.get(recipe, {})) for recipe, own in ways.items()]
        sweeps.append(GuidanceSweep(*whose, tuple(sorted(points, key=lambda point: (bool(point.guide), point.how, point.weight)))))
    several = [sweep for sweep in sweeps if len(sweep.points) > 1]
    return sorted(several, key=lambda sweep: (-sweep.epoch, rank(sweep.metric), sweep.dataset, sweep.recipe))


def picked(report: Report) -> list[Measured]:
    """What is drawn again, an entry a seed: each recipe's best guidance at its last epoch, by the metric that stands first.

    With it go the unguided samples that it is held against, so that both are drawn from the same other noise.
    """
    found = [point for sweep in leading(guidance_sweeps(report)) for point in (sweep.best, sweep.unguided) if point]
    return [each for point in found for each in point.by_seed.values()]


def leading(sweeps: list[GuidanceSweep]) -> list[GuidanceSweep]:
    """Of each recipe and average the sweep at the last epoch by the metric that stands first, whose best is drawn again."""
    first: dict[tuple[str, str, str], GuidanceSweep] = {}
    for sweep in sweeps:
        first.setdefault((sweep.dataset, sweep.recipe, sweep.ema), sweep)
    return list(first.values())


def facts(sweep: GuidanceSweep) -> dict[str, Any]:
    """A sweep as plain data: its sentence, and each way to guide with its change against no guidance and the interval of that."""
    points = []
    for point in sweep.points:
        change = sweep.change(point)
        low, high = change.interval if change and change.interval else (None, None)
        how = {"weight": point.weight, "guide": point.guide or None, "interval": point.interval or None, "evaluations": point.evaluations}
        value = {"seeds": len(point.by_seed), "value": point.value, "error": point.error}
        points.append({**how, **value, "change": change.share if change else None, "low": low, "high": high, "best": point is sweep.best})
    whose = dict(zip(("dataset", "recipe", "epoch", "ema", "metric", "protocol", "n"), sweep.whose, strict=True))
    again = None if sweep.again is None else sweep.again._asdict()
    return {**whose, "sentence": sweep.sentence, "again": again, "points": points}


def elsewhere_guided(report: Report, found: Found) -> dict[Row, Result]:
    """The rows without those of sweeps over guidance: in other figures and tables each way to guide would stand alone."""
    return {row: result for row, result in found.items() if not _swept(result)}


def guided_recipes(report: Report) -> set[str]:
    """The names of the recipes that are points of sweeps over guidance."""
    return {result.task.subject.recipe for result in report.results.values() if _swept(result)}


def _swept(result: Result) -> list[str]:
    """The settings of guidance that are swept, of a result of samples."""
    point = result.task.subject.sweep if "samples" in result.task.inputs else None
    return swept_guidance(point) if point else []


def swept_guidance(point: Swept) -> list[str]:
    """The settings of guidance in which a recipe's point in a sweep may differ from others."""
    return [setting for setting in point.at if setting.startswith(GUIDANCE)]


def _groups(report: Report, found: Found) -> dict[Whose, Ways]:
    return grouped(report, found, _swept, beside_unguided=True)


def _point(report: Report, recipe: str, own: Mapping[int, Found], again: Mapping[int, Found]) -> Point:
    first = next(result for of_seed in own.values() for result in of_seed.values())
    samples = report.input(first, "samples")
    assert samples is not None  # noqa: S101
    guidance, evaluations = sampler_of(samples.task).guidance, evaluations_of(samples)
    assert evaluations is not None  # noqa: S101
    made = Point(recipe, evaluations, measured(own), 1.0, "", "", measured(again))
    if guidance is None:
        return made
    guide = f"by {guide_of(report.plan, samples.task)}" if guidance.guide else "classifier-free"
    interval = f"σ {guidance.interval[0]:g} to {guidance.interval[1]:g}" if guidance.interval else "all σ"
    return replace(made, weight=guidance.weight, guide=guide, interval=interval)
