"""What a frontier says: a sentence on which cheaper sampler is enough, and what drawing it again says; and its numbers as plain data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edm2core.report.collect import Report
from edm2core.report.frontier import COSTS, TOLERANCE, Frontier, Point, frontiers
from edm2core.report.results import label, short_label
from edm2core.report.sampled import Change, change_of

ENOUGH = f"{100 * TOLERANCE:.0f} %"
FRONTIER = (
    *("dataset", "recipe", "epoch", "ema", "metric", "protocol", "n", "solver", "steps", "evaluations", "seeds", "value", "error"),
    *("change", "low", "high", "seconds_per_1000", "joules_per_1000", "device"),
    *("undominated_by_evaluations", "undominated_by_seconds", "undominated_by_joules", "careful", "picked"),
)
"""The columns of frontiers.csv."""


@dataclass(frozen=True)
class Answer:
    """A frontier, and how the picked sampler differs from the most careful one where both were drawn again with other noise."""

    frontier: Frontier
    latest: bool  # whether it is of the recipe's last epoch
    again: Change | None = None

    @property
    def chosen(self) -> Change | None:
        """The change for which the sampler was picked."""
        return self.frontier.change(self.frontier.picked) if self.frontier.picked else None

    @property
    def bias(self) -> float | None:
        """By how much less worse the picked sampler looked when it was picked than drawn again: the luck of picking, as a share."""
        return self.frontier.bias(self.chosen, self.again) if self.again and self.chosen else None

    @property
    def sentences(self) -> list[str]:
        """Which sampler is enough; then, where that is known, the time that it saves and what it is worth drawn again."""
        return [words for words in (_found(self.frontier), _time(self.frontier), self._redrawn()) if words]

    @property
    def sentence(self) -> str:
        return " ".join(self.sentences)

    def _redrawn(self) -> str:
        return self.frontier.redrawn(self.chosen, self.again) if self.again and self.chosen else ""


def answers_of(report: Report) -> list[Answer]:
    """Every frontier's answer: the last epoch of each recipe first, and those metrics first that a reader looks for first."""
    again = {frontier.whose: frontier for frontier in frontiers(report, rechecks=True)}
    found = frontiers(report)
    last: dict[tuple[str, str], int] = {}
    for frontier in found:
        who = (frontier.dataset, frontier.recipe)
        last[who] = max(frontier.epoch, last.get(who, 0))
    return [Answer(f, f.epoch == last[f.dataset, f.recipe], _again(f, again.get(f.whose))) for f in found]


def headline_answers(answers: Iterable[Answer]) -> list[Answer]:
    """Of each recipe and average those at the last epoch by the metric that a reader looks for first."""
    first: dict[tuple[str, str, str], Answer] = {}
    for answer in answers:
        frontier = answer.frontier
        if answer.latest:
            first.setdefault((frontier.dataset, frontier.recipe, frontier.ema), answer)
    return list(first.values())


def lines(answers: Iterable[Answer]) -> list[str]:
    """The sentences that a reader looks for first, a line each that stands by itself."""
    return [f"{answer.frontier.title} · {label(answer.frontier.metric)}: {answer.sentence}" for answer in headline_answers(answers)]


def facts(answer: Answer) -> dict[str, Any]:
    """An answer as plain data: `points` has the columns of frontiers.csv."""
    return {
        "sentence": answer.sentence,
        "latest": answer.latest,
        "again": None if answer.again is None else answer.again._asdict(),
        "bias": answer.bias,
        "points": point_facts(answer.frontier),
    }


def point_facts(frontier: Frontier) -> list[dict[str, Any]]:
    """Every sampler of a frontier, with the columns of FRONTIER."""
    undominated = {cost: frontier.undominated(cost) for cost in COSTS}
    lines = []
    for point in frontier.points:
        change = frontier.change(point)
        around = change.interval if change and change.interval else (None, None)
        measured = (point.solver, point.steps, point.evaluations, len(point.by_seed), point.value, point.error)
        spent = (point.seconds, point.joules, point.device or None)
        marks = [None if point.cost(cost) is None else point in undominated[cost] for cost in COSTS]
        who = (point is frontier.careful, point is frontier.picked)
        values = (*frontier.whose, *measured, change.share if change else None, *around, *spent, *marks, *who)
        lines.append(dict(zip(FRONTIER, values, strict=True)))
    return lines


def _found(frontier: Frontier) -> str:
    careful, picked, nearest, metric = frontier.careful, frontier.picked, frontier.nearest, short_label(frontier.metric)
    if nearest is None:
        return f"All samplers take {careful.evaluations} evaluations; {careful.solver} has the best {metric}."
    change = frontier.change(picked or nearest)
    if change is None:
        return f"{metric} has values that are not above 0, so no sampler is compared with another."
    worse, words = frontier.worse(change.share), change.words
    if picked is None:
        return f"No sampler with fewer evaluations comes within {ENOUGH} of {careful.name}'s {metric}; {nearest.name} has {words}."
    step = f"{careful.name} → {picked.name} evaluations:"
    if worse < -TOLERANCE:
        return f"{step} its {metric} is better ({words})."
    sure = change.interval is not None and max(map(frontier.worse, change.interval)) <= TOLERANCE
    unsure = "" if sure else f", though more than {ENOUGH} is not excluded"
    return f"{step} within {ENOUGH} of its {metric}{unsure} ({words})."


def _time(frontier: Frontier) -> str:
    careful, picked = frontier.careful, frontier.picked
    if picked is None or careful.seconds is None or picked.seconds is None or careful.device != picked.device:
        return ""
    return f"1,000 images take {picked.seconds:.3g} s instead of {careful.seconds:.3g} s."


def _again(frontier: Frontier, fresh: Frontier | None) -> Change | None:
    points: dict[str, Point] = {point.recipe: point for point in fresh.points} if fresh else {}
    if frontier.picked is None or not {frontier.careful.recipe, frontier.picked.recipe} <= points.keys():
        return None
    return change_of(points[frontier.careful.recipe].by_seed, points[frontier.picked.recipe].by_seed)
