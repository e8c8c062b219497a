"""The answer first: for each data set and metric which recipe is better, by how much, and whether that is shown.

A verdict is drawn from the differences of `seeds.py` alone. It tests nothing itself.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edm2core.plan.probe_metrics import is_probe
from edm2core.report.collect import Report
from edm2core.report.digits import decimals, minus, places, rounded
from edm2core.report.frontier import compared_apart
from edm2core.report.results import better, higher_is_better, label, rank, rows, short_label
from edm2core.report.seeds import Difference, Measure, Spread, differences, leading, spreads
from edm2core.report.statistics import mean_interval, smallest_with

Kind = Literal["shown", "not_shown", "no_claim", "not_comparable"]
FEW = 3  # recipes that a sentence names one by one


@dataclass(frozen=True)
class Mean:
    """One recipe's mean over its training seeds, and the 95 % interval of that mean."""

    recipe: str
    mean: float
    deviation: float | None  # between seeds; none: one seed
    interval: tuple[float, float] | None
    values: tuple[float, ...]  # of each seed
    leads: bool  # nobody is shown to be better, and somebody is shown to be worse


@dataclass(frozen=True)
class Pair:
    """Two recipes with two or more seeds each; the first has the better mean."""

    first: str
    second: str
    shown: bool
    difference: float  # never negative
    interval: tuple[float, float]  # of the advantage of the first, at `confidence`; it holds 0 exactly where no difference is shown
    confidence: float  # 1 less the level that Holm's correction leaves this pair
    p_corrected: float
    smallest: float  # the smallest difference that these seeds would have shown
    seeds: tuple[int, int]
    more_seeds: int  # twice as many seeds of each …
    would_show: float  # … would show this difference at the same spread

    def interval_in_words(self, metric: str) -> str:
        low, high = (rounded(end, decimals([(self.interval[1] - self.interval[0]) / 2]) or 0) for end in self.interval)
        return minus(f"{low} to {high} {unit(metric)}")


@dataclass(frozen=True)
class Verdict:
    """What one measure says at one epoch. `winner` and `loser` are the best two recipes, named only where a difference is shown."""

    kind: Kind
    dataset: str
    metric: str
    protocol: str
    ema: str
    n: int | None
    epoch: int
    headline: bool  # the metric that the data set is judged by first
    winner: str | None
    loser: str | None
    difference: float | None  # between the best two
    interval: tuple[float, float] | None
    p_corrected: float | None
    seeds: tuple[int, ...]  # of the recipes, in the order of `means`
    means: tuple[Mean, ...]  # the best first
    pairs: tuple[Pair, ...]
    sentence: str

    @property
    def measure(self) -> Measure:
        return Measure(self.dataset, self.metric, self.protocol, self.ema, self.n)

    @property
    def direction(self) -> str:
        return f"{better(self.metric)} is better"

    @property
    def places(self) -> int:
        """Decimals of the means."""
        return _places(self.means)


def verdicts(means: Iterable[Spread], tests: Iterable[Difference], samplers: Collection[str] = ()) -> list[Verdict]:
    """A verdict for each measure at the last epoch with the most trainings: those that a reader looks for first come first.

    `samplers` are recipes that differ in the sampler alone. A frontier compares them, so one by itself gets no verdict of its samples.
    """
    by_measure: dict[Measure, list[Spread]] = {}
    for spread in means:
        by_measure.setdefault(spread.measure, []).append(spread)
    sampled = {measure for measure, of in by_measure.items() if not is_probe(measure.metric) and {s.recipe for s in of} <= {*samplers}}
    by_measure = {m: of for m, of in by_measure.items() if m not in sampled or len({spread.recipe for spread in of}) > 1}
    tested: dict[Measure, list[Difference]] = {}
    for difference in tests:
        tested.setdefault(difference.measure, []).append(difference)
    main = _main(by_measure)
    alone = {m for m, of in by_measure.items() if m not in sampled and _stands_alone(m, of, by_measure, main)}
    first = _headlines(by_measure)
    found = [
        _verdict(measure, of, tested.get(measure, []), measure in alone, measure.metric in first[measure.dataset], measure in main | alone)
        for measure, of in by_measure.items()
    ]
    order = list(dict.fromkeys(measure.dataset for measure in by_measure))
    return sorted(found, key=lambda v: (not v.headline, order.index(v.dataset), rank(v.metric), v.measure not in main))


def answers(report: Report) -> list[Verdict]:
    """The verdicts of a report."""
    found = spreads(rows(report))
    return verdicts(found, differences(found), compared_apart(report))


def headlines(found: Iterable[Verdict]) -> list[str]:
    """The verdicts that a reader looks for first, a line each that stands by itself."""
    return [f"{verdict.dataset} · {label(verdict.metric)}: {verdict.sentence}" for verdict in found if verdict.headline]


def facts(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data."""
    return asdict(verdict)


def _main(by_measure: dict[Measure, list[Spread]]) -> set[Measure]:
    """Of each data set and metric the measure that most recipes share; of several the fixed average's."""
    groups: dict[tuple[str, str], list[Measure]] = {}
    for measure in by_measure:
        groups.setdefault((measure.dataset, measure.metric), []).append(measure)
    return {max(of, key=lambda m: (len({s.recipe for s in by_measure[m]}), m.ema in ("", "fixed"))) for of in groups.values()}


def _stands_alone(measure: Measure, of: list[Spread], by_measure: dict[Measure, list[Spread]], main: set[Measure]) -> bool:
    """Whether its recipes are not in the main measure of their metric, so that they were measured in another way than the others."""
    first = next(m for m in main if (m.dataset, m.metric) == (measure.dataset, measure.metric))
    return measure != first and not {s.recipe for s in of} & {s.recipe for s in by_measure[first]}


def _headlines(by_measure: Iterable[Measure]) -> dict[str, set[str]]:
    """Of each data set the first metric of samples and the first of probes."""
    found: dict[str, dict[bool, str]] = {}
    for measure in sorted(by_measure, key=lambda m: rank(m.metric)):
        found.setdefault(measure.dataset, {}).setdefault(is_probe(measure.metric), measure.metric)
    return {dataset: set(metrics.values()) for dataset, metrics in found.items()}


def _verdict(measure: Measure, of: Sequence[Spread], tests: Sequence[Difference], alone: bool, first: bool, main: bool) -> Verdict:
    trainings: dict[int, int] = {}
    for spread in of:
        trainings[spread.epoch] = trainings.get(spread.epoch, 0) + len(spread.values)
    epoch = max(trainings, key=lambda each: (trainings[each], each))
    here = [difference for difference in tests if difference.epoch == epoch]
    leaders = leading(here)
    own = sorted((s for s in of if s.epoch == epoch), key=lambda s: s.mean, reverse=higher_is_better(measure.metric))
    means = tuple(Mean(s.recipe, s.mean, s.deviation, mean_interval(s.values), s.values, s.recipe in leaders) for s in own)
    order = {mean.recipe: place for place, mean in enumerate(means)}
    pairs = tuple(sorted((_pair(d) for d in here if d.judgement), key=lambda pair: (order[pair.first], order[pair.second])))
    top = pairs[0] if pairs else None
    kind: Kind = "not_comparable" if alone else "no_claim" if top is None else "shown" if top.shown else "not_shown"
    return Verdict(
        kind,
        *measure,
        epoch,
        first and main,
        top.first if top and top.shown else None,
        top.second if top and top.shown else None,
        top.difference if top else None,
        top.interval if top else None,
        top.p_corrected if top else None,
        tuple(len(mean.values) for mean in means),
        means,
        pairs,
        _sentence(measure, epoch, kind, means, pairs),
    )


def _pair(found: Difference) -> Pair:
    judged = found.judgement
    if judged is None:
        raise ValueError("a pair without a test")
    first, second = (found.other, found.one) if found.better == found.other.recipe else (found.one, found.other)
    difference = abs(found.difference)
    more = 2 * max(len(first.values), len(second.values))
    return Pair(
        first.recipe,
        second.recipe,
        judged.stands,
        difference,
        (difference - judged.smallest, difference + judged.smallest),
        1 - judged.level,
        judged.p,
        judged.smallest,
        (len(first.values), len(second.values)),
        more,
        smallest_with(more, first.values, second.values, judged.level),
    )


def _sentence(measure: Measure, epoch: int, kind: Kind, means: Sequence[Mean], pairs: Sequence[Pair]) -> str:
    called = _short([mean.recipe for mean in means])
    metric = short_label(measure.metric)
    if kind == "not_comparable":
        names = _list([called[mean.recipe] for mean in means])
        they_were, they_are = ("was", "it is") if len(means) == 1 else ("were", "they are")
        return f"{names} {they_were} measured in another way than the rest, so {they_are} not compared with it."
    if not pairs:
        return _no_claim(metric, epoch, means, called)
    words = _shown(measure.metric, epoch, pairs, called) if pairs[0].shown else _not_shown(measure.metric, epoch, pairs, called)
    untested = [called[mean.recipe] for mean in means if not any(mean.recipe in (pair.first, pair.second) for pair in pairs)]
    return words + (f" {_list(untested)}: one seed, no claim." if untested else "")


def _no_claim(metric: str, epoch: int, means: Sequence[Mean], called: dict[str, str]) -> str:
    values = ", ".join(f"{called[mean.recipe]} {rounded(mean.mean, _places(means))}" for mean in means[:FEW])
    values += f" and {len(means) - FEW} more" if len(means) > FEW else ""
    if len(means) == 1:
        seeds = len(means[0].values)
        return f"One recipe, so nothing to compare: {metric} {values} at epoch {epoch} ({_seeds([seeds])})."
    few = any(len(mean.values) < 2 for mean in means)
    return f"{'One seed' if few else 'No spread between seeds'}: no claim. {metric} at epoch {epoch}: {values}."


def _shown(metric: str, epoch: int, pairs: Sequence[Pair], called: dict[str, str]) -> str:
    """The best recipe beats the second best, and maybe others."""
    best = pairs[0].first
    own = [pair for pair in pairs if pair.first == best]
    beaten = [pair for pair in own if pair.shown]
    evidence = f"at epoch {epoch} ({_evidence(beaten)})"
    if len(beaten) > FEW:
        least = min(pair.difference for pair in beaten)
        all_of_them = "all" if len(beaten) == len(own) else f"{len(beaten)} of"
        words = f"{called[best]} beats {all_of_them} {len(own)} others, by {gap(metric, least, beaten)} or more {evidence}."
    else:
        words = f"{called[best]} beats {_list([f'{called[p.second]} by {gap(metric, p.difference, beaten)}' for p in beaten])} {evidence}."
    missed = [called[pair.second] for pair in own if not pair.shown]
    return words + (f" Against {_list(missed[:FEW])} no difference is shown." if missed and len(beaten) <= FEW else "")


def _not_shown(metric: str, epoch: int, pairs: Sequence[Pair], called: dict[str, str]) -> str:
    """The best two are not told apart; others may be."""
    top, shown = pairs[0], [pair for pair in pairs if pair.shown]
    words = (
        f"No difference shown between {called[top.first]} and {called[top.second]}: {gap(metric, top.difference, [top])} apart at epoch "
        f"{epoch} ({_evidence([top])}); with {top.more_seeds} seeds of each, a gap of {gap(metric, top.would_show, [top])} would be shown."
    )
    if not shown:
        return words
    some = [f"{called[pair.first]} beats {called[pair.second]} by {gap(metric, pair.difference, [pair])}" for pair in shown[:2]]
    more = f" and {len(shown) - 2} more" if len(shown) > 2 else ""
    return f"{words} Shown: {', '.join(some)}{more}."


def _evidence(pairs: Sequence[Pair]) -> str:
    """So many seeds, and the largest corrected p."""
    p = max(pair.p_corrected for pair in pairs)
    sign = "≤" if len(pairs) > 1 else "="
    value = "< .001" if p < 0.001 else f"{sign} {p:.{3 if p < 0.1 else 2}f}".replace(" 0.", " .")
    return f"{_seeds(sorted({seeds for pair in pairs for seeds in pair.seeds}))}, corrected p {value}"


def gap(metric: str, difference: float, pairs: Sequence[Pair]) -> str:
    """A difference with its unit, in as many digits as its interval justifies: 17.8 FD, 1.3 points."""
    margins = ((pair.interval[1] - pair.interval[0]) / 2 for pair in pairs)
    return f"{rounded(difference, places([difference], margins))} {unit(metric)}"


def _places(means: Iterable[Mean]) -> int:
    """Decimals of means, as many as their deviations justify."""
    known = list(means)
    return places((mean.mean for mean in known), (mean.deviation for mean in known))


def unit(metric: str) -> str:
    """What a difference of a metric is in: percentage points for accuracies, else the metric itself."""
    return "points" if is_probe(metric) else short_label(metric)


def _short(recipes: Sequence[str]) -> dict[str, str]:
    """Recipes by their last part where all share what stands before it."""
    before = {recipe.rpartition("/")[0] for recipe in recipes}
    return {recipe: recipe.rpartition("/")[2] if len(before) == 1 else recipe for recipe in recipes}


def _seeds(counts: Sequence[int]) -> str:
    return f"{_list([str(count) for count in counts])} seed{'s' if counts != [1] else ''}"


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
