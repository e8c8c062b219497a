"""What quality costs: samplers of the same snapshots, by network evaluations, by seconds and by joules.

Values by different samplers never share a column elsewhere. A frontier is the one place that compares them: they draw from the same weights
and begin from the same noise, so that what differs is the sampler's doing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from edm2core.config.describe import in_words
from edm2core.config.settings import SampleSettings
from edm2core.plan.subject import Swept
from edm2core.report.collect import Report, Result
from edm2core.report.evaluations import evaluations_of, sampler_of
from edm2core.report.guidance import elsewhere_guided, guided_recipes, swept_guidance
from edm2core.report.protocol import SOLVER_OPTIONS
from edm2core.report.results import Row, higher_is_better, rank, rows
from edm2core.report.sampled import Change, Found, Sampled, Way, Ways, change_of, grouped, measured
from edm2core.report.summary import Table, tables

SAMPLER = ("solver", "steps", "schedule", "rho", "sigma_min", "sigma_max", *SOLVER_OPTIONS, "clip", "state", "precision")
"""The settings of `sample` in which the points of one frontier may differ, with those of own solvers. Others, such as guidance, tell
frontiers apart."""
TOLERANCE = 0.02  # how much worse than the most careful sampler a cheaper one may be to be named
COSTS = ("evaluations", "seconds", "joules")


@dataclass(frozen=True)
class Point(Way):
    """One sampler: how good its images are, and what an image costs."""

    solver: str  # and what else is swept beside the steps, in words
    steps: int
    seconds: float | None  # of one device, for 1,000 images
    joules: float | None  # likewise
    device: str

    @property
    def name(self) -> str:
        return f"{self.solver} {self.evaluations}"

    def cost(self, of: str) -> float | None:
        """One of COSTS."""
        cost: float | None = getattr(self, of)
        return cost


@dataclass(frozen=True)
class Frontier(Sampled[Point]):
    """A metric by several samplers, of one recipe's snapshots at one epoch. Points ascend by evaluations."""

    @cached_property
    def careful(self) -> Point:
        """The sampler that others are held against: the one with the most evaluations; of several the best."""
        most = self.points[-1].evaluations
        return self.best_among([point for point in self.points if point.evaluations == most])

    @cached_property
    def picked(self) -> Point | None:
        """Of the cheaper samplers that are at most TOLERANCE worse, the one with the fewest evaluations; of several the best.

        None where there is none, and where the metric has no ratio.
        """
        enough = [p for p in self._cheaper if (change := self.change(p)) and self.worse(change.share) <= TOLERANCE]
        return self.best_among([point for point in enough if point.evaluations == enough[0].evaluations]) if enough else None

    @cached_property
    def nearest(self) -> Point | None:
        """The best of the samplers with fewer evaluations."""
        return self.best_among(self._cheaper) if self._cheaper else None

    @property
    def _cheaper(self) -> list[Point]:
        return [point for point in self.points if point.evaluations < self.careful.evaluations]

    def change(self, point: Point) -> Change | None:
        """How a sampler's metric differs from the most careful one's. None where a value is not above 0, so that there is no ratio."""
        return change_of(self.careful.by_seed, point.by_seed)

    def undominated(self, cost: str) -> list[Point]:
        """The samplers than which no other is as cheap or cheaper and better, nor cheaper and as good; cheapest first."""
        sign = -1 if higher_is_better(self.metric) else 1
        known = sorted((c, sign * p.value, number) for number, p in enumerate(self.points) if (c := p.cost(cost)) is not None)
        kept: list[Point] = []
        least = math.inf
        for _, value, number in known:
            if value < least:
                kept.append(self.points[number])
                least = value
        return kept


def frontiers(report: Report, *, rechecks: bool = False) -> list[Frontier]:
    """A report's frontiers: the last epoch of each recipe first, and those metrics first that a reader looks for first.

    With `rechecks` their points are of the samples that were drawn again.
    """
    groups = grouped(report, rows(report, rechecks=rechecks), _swept)
    found = [Frontier(*whose, _points(report, samplers)) for whose, samplers in groups.items()]
    last = {(f.dataset, f.recipe): max(g.epoch for g in found if (g.dataset, g.recipe) == (f.dataset, f.recipe)) for f in found}
    several = [frontier for frontier in found if rechecks or len(frontier.points) > 1]
    return sorted(several, key=lambda f: (f.epoch != last[f.dataset, f.recipe], rank(f.metric), f.dataset, -f.epoch))


def swept_samplers(point: Swept) -> list[str]:
    """The settings of a recipe's point in a sweep that make it a point of a frontier; none where neither solver nor steps are swept."""
    sampled = {setting: setting.removeprefix("sample.") for setting in point.at if setting.startswith("sample.")}
    own = [setting for setting, name in sampled.items() if name in SAMPLER or name.partition(".")[0] not in SampleSettings.model_fields]
    return own if {"sample.solver", "sample.steps"} & set(own) else []


def on_frontiers(report: Report) -> set[str]:
    """The names of the recipes that are points of frontiers."""
    return {result.task.subject.recipe for result in report.results.values() if _swept(result)}


def compared_apart(report: Report) -> set[str]:
    """The names of the recipes that a section of their own compares: those on frontiers, and those of sweeps over guidance."""
    return on_frontiers(report) | guided_recipes(report)


def elsewhere(report: Report, found: Found) -> dict[Row, Result]:
    """The rows that a frontier does not show: in tables and curves each sampler would stand alone, as a protocol of its own."""
    samplers = on_frontiers(report)
    return {row: result for row, result in found.items() if row.recipe not in samplers or "samples" not in result.task.inputs}


def compared_here(report: Report, found: Found) -> dict[Row, Result]:
    """The rows that no section of their own compares: those of the main tables and of the curves along the training."""
    return elsewhere_guided(report, elsewhere(report, found))


def main_tables(report: Report, found: Found) -> list[Table]:
    """The main tables, without samplers of frontiers and guided ones of sweeps where nothing else was measured of them."""
    apart, made = compared_apart(report), tables(report, compared_here(report, found))
    shown = [replace(table, lines=[line for line in table.lines if line.cells or line.recipe not in apart]) for table in made]
    return [table for table in shown if table.lines]


def trained(report: Report) -> dict[str, list[str]]:
    """What the recipes of each data set are called, those that differ in the sampler or its guidance alone as one."""
    apart = compared_apart(report)
    subjects = {s.recipe: s for result in report.results.values() if (s := result.task.subject).recipe}
    names: dict[str, dict[str, int]] = {}
    for recipe, subject in subjects.items():
        own = names.setdefault(subject.dataset, {})
        name = (
            subject.sweep.without([*swept_samplers(subject.sweep), *swept_guidance(subject.sweep)])
            if subject.sweep and recipe in apart
            else recipe
        )
        own[name] = own.get(name, 0) + 1
    return {dataset: [name + f", sampled in {count} ways" * (count > 1) for name, count in own.items()] for dataset, own in names.items()}


def _swept(result: Result) -> list[str]:
    return swept_samplers(result.task.subject.sweep) if result.task.subject.sweep else []


def _points(report: Report, samplers: Ways) -> tuple[Point, ...]:
    points = [_point(report, recipe, by_seed) for recipe, by_seed in samplers.items()]
    return tuple(sorted(points, key=lambda point: (point.evaluations, point.solver)))


def _point(report: Report, recipe: str, by_seed: Mapping[int, Found]) -> Point:
    results = [result for found in by_seed.values() for result in found.values()]
    samples = [drawn for result in results if (drawn := report.input(result, "samples"))]
    subject, task = results[0].task.subject, samples[0].task
    settings, evaluations = sampler_of(task), evaluations_of(samples[0])
    assert evaluations is not None  # noqa: S101
    seconds, joules, device = _spent(samples)
    solver = " ".join([settings.solver, *_others(subject.sweep)])
    return Point(recipe, evaluations, measured(by_seed), solver, settings.steps, seconds, joules, device)


def _others(point: Swept | None) -> list[str]:
    """What is swept of the sampler beside solver and steps, in words."""
    others = [each for each in swept_samplers(point) if each not in ("sample.solver", "sample.steps")] if point else []
    return [f"{setting.rpartition('.')[2]}={in_words('', point.at[setting])}" for setting in others] if point else []


def _spent(samples: Iterable[Result]) -> tuple[float | None, float | None, str]:
    """Seconds and joules of one device for 1,000 images, and the device; None where they are not recorded, or of several devices."""
    drawn = [(result.metadata.get("drawing") or {}, str(result.provenance.get("device", ""))) for result in samples]
    devices = {device for drawing, device in drawn if drawing.get("images")}
    if len(devices) != 1:
        return None, None, ""
    known = [drawing for drawing, _ in drawn if drawing.get("images")]
    images = sum(drawing["images"] for drawing in known)
    joules = [drawing.get("joules") for drawing in known]
    energy = None if None in joules else 1000 * sum(filter(None, joules)) / images
    return 1000 * sum(drawing["seconds"] for drawing in known) / images, energy, next(iter(devices))
