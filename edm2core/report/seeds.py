"""What several training seeds say: each recipe's mean and spread, and which differences between recipes stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import fmean, stdev, variance
from types import MappingProxyType
from typing import Any, NamedTuple

from edm2core.plan.manifest import Ref
from edm2core.report.collect import Result
from edm2core.report.digits import places
from edm2core.report.results import Row, higher_is_better, label
from edm2core.report.statistics import Judgement, Welch, judge, welch

SPREAD = ("dataset", "metric", "protocol", "ema", "n", "recipe", "epoch", "seeds", "mean", "deviation", "draws_deviation")
DIFFERENCE = (
    *("dataset", "metric", "protocol", "ema", "n", "epoch", "one", "other"),
    *("difference", "low", "high", "p_corrected", "smallest", "verdict"),
)

NAMED = {"dataset": "", "ema": "EMA ", "protocol": "", "n": "n = "}  # what stands before a field in a title


class Measure(NamedTuple):
    """What is compared with nothing but itself: a metric under one protocol, with one average, of so many images."""

    dataset: str
    metric: str
    protocol: str
    ema: str
    n: int | None


@dataclass(frozen=True)
class Spread:
    """One recipe's values at one epoch, over its training seeds."""

    measure: Measure
    recipe: str
    epoch: int
    values: tuple[float, ...]  # of each seed, the mean of its draws
    draws_deviation: float | None  # between draws of the same training, pooled; none: one draw each
    results: tuple[tuple[int, float, Ref], ...] = ()  # that the values are of: seed, value of one draw, address

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation between seeds (n - 1); the sampling of one draw each is part of it."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Two recipes at one epoch. No judgement: no claim, as one of them has one seed, or their seeds do not differ at all."""

    measure: Measure
    epoch: int
    one: Spread
    other: Spread
    judgement: Judgement | None

    @property
    def difference(self) -> float:
        """Mean of `other` minus mean of `one`."""
        return self.other.mean - self.one.mean

    @property
    def better(self) -> str:
        """The recipe with the better mean."""
        return self.other.recipe if (self.difference > 0) == higher_is_better(self.measure.metric) else self.one.recipe

    @property
    def words(self) -> str:
        if self.judgement is None:
            return "one seed: no claim" if min(len(self.one.values), len(self.other.values)) < 2 else "no spread between seeds: no claim"
        return f"{self.better} is better" if self.judgement.stands else "no difference shown"


@dataclass(frozen=True)
class SeedTable:
    """One measure's spreads, by recipe and epoch, and its differences."""

    metric: str
    epochs: list[int]
    lines: dict[str, dict[int, Spread]]
    differences: list[Difference]
    measure: Measure

    @cached_property  # every cell of the table asks
    def places(self) -> int:
        """Decimals of the means, as many as their deviations justify."""
        known = [spread for line in self.lines.values() for spread in line.values()]
        return places((spread.mean for spread in known), (spread.deviation for spread in known))


def seed_tables(found: Sequence[Spread]) -> dict[str, SeedTable]:
    """A table for each measure, by a title that tells it from the others."""
    families: dict[Measure, list[Spread]] = {}
    for spread in found:
        families.setdefault(spread.measure, []).append(spread)
    tables = {}
    for measure, members in sorted(families.items(), key=lambda family: family[0].metric.endswith("accuracy")):
        others = [other for other in families if other.metric == measure.metric]
        telling = [field for field in ("dataset", "ema", "protocol", "n") if len({getattr(other, field) for other in others}) > 1]
        words = [f"{NAMED[field]}{getattr(measure, field)}" for field in telling]
        lines: dict[str, dict[int, Spread]] = {}
        for spread in members:
            lines.setdefault(spread.recipe, {})[spread.epoch] = spread
        title = " · ".join([label(measure.metric), *words])
        tables[title] = SeedTable(measure.metric, sorted({member.epoch for member in members}), lines, differences(members), measure)
    return tables


def spreads(rows: Iterable[Row], of: Mapping[Row, Result] = MappingProxyType({})) -> list[Spread]:
    """Every recipe's values by epoch, in the rows' order; `of` says which results they are of."""
    found: dict[tuple[Measure, str, int], dict[int, list[float]]] = {}
    results: dict[tuple[Measure, str, int], list[tuple[int, float, Ref]]] = {}
    for row in rows:
        if row.recipe is None or row.seed is None or row.epoch is None or row.value is None:
            continue
        who = (measure_of(row), row.recipe, row.epoch)
        found.setdefault(who, {}).setdefault(row.seed, []).append(row.value)
        if row in of:
            results.setdefault(who, []).append((row.seed, row.value, of[row].task.ref))
    return [
        Spread(*who, tuple(fmean(values) for values in seeds.values()), _between_draws(list(seeds.values())), tuple(results.get(who, ())))
        for who, seeds in found.items()
    ]


def measure_of(row: Row) -> Measure:
    """What a value may be held against."""
    return Measure(row.dataset, row.metric, row.protocol, row.ema or "", row.n)


def differences(found: Iterable[Spread]) -> list[Difference]:
    """Every pair of recipes at every epoch that both have. A family, for Holm's correction: the pairs and epochs of one measure."""
    families: dict[Measure, list[Spread]] = {}
    for spread in found:
        families.setdefault(spread.measure, []).append(spread)
    return [difference for measure, members in families.items() for difference in _family(measure, members)]


def leading(found: Iterable[Difference]) -> set[str]:
    """The recipes that nobody is shown to beat, where somebody is shown to be beaten: the winners, and whoever is tied with one."""
    found = [difference for difference in found if difference.judgement]
    standing = [difference for difference in found if difference.judgement and difference.judgement.stands]
    losers = {recipe for d in standing for recipe in (d.one.recipe, d.other.recipe) if recipe != d.better}
    winners = {d.better for d in standing} - losers
    tied = {recipe for d in found for recipe in (d.one.recipe, d.other.recipe) if {d.one.recipe, d.other.recipe} & winners}
    return winners | tied - losers


def bars(tables: Iterable[SeedTable]) -> dict[Measure, tuple[int, set[str]]]:
    """The recipes of each measure that lead at its last epoch, and that epoch."""
    return {
        table.measure: (table.epochs[-1], leading(difference for difference in table.differences if difference.epoch == table.epochs[-1]))
        for table in tables
    }


def spread_facts(spread: Spread) -> dict[str, Any]:
    """SPREAD by name; `n` counts images, `seeds` trainings, and both deviations are of one value, not of the mean."""
    here = (spread.recipe, spread.epoch, len(spread.values), spread.mean, spread.deviation, spread.draws_deviation)
    return dict(zip(SPREAD, (*spread.measure, *here), strict=True))


def difference_facts(found: Difference) -> dict[str, Any]:
    """DIFFERENCE by name; `p_corrected` is Holm's, and what needs a test is None where there is no claim."""
    judged = found.judgement
    tested = (*judged.interval, judged.p, judged.smallest) if judged else (None,) * 4
    here = (found.epoch, found.one.recipe, found.other.recipe, found.difference, *tested, found.words)
    return dict(zip(DIFFERENCE, (*found.measure, *here), strict=True))


def _family(measure: Measure, members: Sequence[Spread]) -> list[Difference]:
    epochs = sorted({member.epoch for member in members})
    pairs = [pair for epoch in epochs for pair in combinations([m for m in members if m.epoch == epoch], 2)]
    tests = [welch(one.values, other.values) for one, other in pairs]
    judgements = iter(judge([test for test in tests if isinstance(test, Welch)]))
    return [
        Difference(measure, one.epoch, one, other, next(judgements) if test else None)
        for (one, other), test in zip(pairs, tests, strict=True)
    ]


def _between_draws(seeds: Sequence[Sequence[float]]) -> float | None:
    """The pooled standard deviation between draws of the same training."""
    several = [draws for draws in seeds if len(draws) > 1]
    freedom = sum(len(draws) - 1 for draws in several)
    return (sum(variance(draws) * (len(draws) - 1) for draws in several) / freedom) ** 0.5 if freedom else None
