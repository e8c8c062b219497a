"""Whether two groups of independent runs differ: Welch's test, Holm's correction, and what so few runs could have shown. No scipy:
the small image that writes reports has none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, variance

ALPHA = 0.05  # chance of calling any difference of a family where there is none


@dataclass(frozen=True)
class Welch:
    """Two groups compared: their difference in means, its standard error, and the degrees of freedom (Welch 1947, Satterthwaite 1946)."""

    difference: float
    error: float
    freedom: float

    @property
    def p(self) -> float:
        """Two-sided p-value."""
        return t_p(self.difference / self.error, self.freedom)

    def margin(self, alpha: float) -> float:
        """The smallest difference that this error would call at level `alpha`; also half the width of the 1 - alpha interval."""
        return t_quantile(alpha, self.freedom) * self.error


@dataclass(frozen=True)
class Judgement:
    """A comparison judged within its family."""

    p: float  # corrected: to be held against ALPHA
    stands: bool
    interval: tuple[float, float]  # of the difference, at 1 - `level`: it holds 0 exactly where the comparison does not stand
    smallest: float  # the smallest difference that would have stood, this spread and the family's other outcomes given
    level: float  # the largest uncorrected p-value that would have stood beside the family's others


def welch(one: Sequence[float], other: Sequence[float]) -> Welch | None:
    """Mean of `other` minus mean of `one`; None where either has fewer than two values or neither has any spread: there is no claim."""
    if min(len(one), len(other)) < 2:
        return None
    parts = [(variance(values) / len(values), len(values) - 1) for values in (one, other)]
    total = sum(part for part, _ in parts)
    largest = max(abs(value) for value in (*one, *other))
    if math.sqrt(total) <= 1e-12 * largest or total == 0:  # the same run several times, but for rounding
        return None
    freedom = 1 / sum((part / total) ** 2 / free for part, free in parts)
    return Welch(fmean(other) - fmean(one), math.sqrt(total), freedom)


def smallest_with(seeds: int, one: Sequence[float], other: Sequence[float], level: float) -> float:
    """The smallest difference that so many values of each group would call at `level`, spread as these are."""
    variances = [variance(values) for values in (one, other)]
    freedom = sum(variances) ** 2 * (seeds - 1) / sum(each**2 for each in variances)
    return Welch(0.0, math.sqrt(sum(variances) / seeds), freedom).margin(level)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 1 - ALPHA interval of the mean of independent values, by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    margin = t_quantile(ALPHA, len(values) - 1) * math.sqrt(variance(values) / len(values))
    return fmean(values) - margin, fmean(values) + margin


def paired_ratio(draws: Sequence[tuple[tuple[float, Sequence[float]], tuple[float, Sequence[float]]]]) -> tuple[float, float] | None:
    """The 1 - ALPHA interval of ln(other / one), the mean over draws, by a jackknife over blocks of images that both have in common.

    Each draw has for `one` and for `other` the value, and the values without each block. Where the images of a block began from the same
    noise, what one block does to both drops out. None where a draw has no such values, other blocks, or values that are not above 0.
    """
    errors: list[float] = []
    blocks = 0
    for (one, without_one), (other, without_other) in draws:
        if len(without_one) != len(without_other) or len(without_one) < 2 or min(one, other, *without_one, *without_other) <= 0:
            return None
        logs = [math.log(b / a) for a, b in zip(without_one, without_other, strict=True)]
        errors.append(math.sqrt((len(logs) - 1) ** 2 / len(logs) * variance(logs)))  # Shao & Tu 1995, "The Jackknife", equation 2.3
        blocks += len(logs) - 1
    if not errors:
        return None
    middle = fmean(math.log(other / one) for (one, _), (other, _) in draws)
    margin = t_quantile(ALPHA, blocks) * math.hypot(*errors) / len(errors)
    return middle - margin, middle + margin


def independent_ratio(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The 1 - ALPHA interval of ln(other / one) of two values above 0 with their standard errors, as if they were independent.

    Values that share their noise vary together, for which it is too wide, never too narrow.
    """
    middle = math.log(other[0] / one[0])
    margin = NormalDist().inv_cdf(1 - ALPHA / 2) * math.hypot(one[1] / one[0], other[1] / other[0])
    return middle - margin, middle + margin


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values by the step-down procedure of Holm (1979): calling those of at most alpha errs anywhere with at most alpha."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(_ranked(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def judge(family: Sequence[Welch]) -> list[Judgement]:
    """Every comparison of a family, with Holm's correction."""
    p_values = [found.p for found in family]
    adjusted = holm(p_values)
    judgements = []
    for index, found in enumerate(family):
        level = _level(p_values[:index] + p_values[index + 1 :])
        margin = found.margin(level)
        interval = (found.difference - margin, found.difference + margin)
        judgements.append(Judgement(adjusted[index], adjusted[index] <= ALPHA, interval, margin, level))
    return judgements


def _level(others: Sequence[float]) -> float:
    """The largest p-value that Holm's procedure would call beside those of the family's `others`.

    It calls them first as far as they stand with one more test to come, so this one is the last that it looks at.
    """
    family = len(others) + 1
    before = next((rank for rank, p in enumerate(sorted(others)) if p > ALPHA / (family - rank)), len(others))
    return ALPHA / (family - before)


def _ranked(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda index: p_values[index])


def t_p(t: float, freedom: float) -> float:
    """P(|T| >= |t|) of Student's t with so many degrees of freedom, which need not be whole."""
    square = t * t
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square))


@lru_cache(maxsize=4096)  # the page and every file of a report ask for the same ones
def t_quantile(alpha: float, freedom: float) -> float:
    """The t that `t_p` gives `alpha` for, by Newton's method, which approaches it from below as `t_p` is convex."""
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    t = 0.0
    for _ in range(1000):
        density = math.exp(log_scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (t_p(t, freedom) - alpha) / (2 * density)
        t += step
        if step <= 1e-13 * t:
            break
    return t


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b), with `rest` = 1 - x, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or rest <= 0:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _incomplete_beta(b, a, rest, x)
    log_front = a * math.log(x) + b * math.log(rest) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    fraction, above, below = 1.0, 1.0, 0.0  # Lentz's algorithm
    for term in range(1, 1000):
        m = term // 2
        factor = -(a + m) * (a + b + m) if term % 2 else m * (b - m)
        factor *= x / ((a + term - 1) * (a + term))
        below = 1 / (1 + factor * below)
        above = 1 + factor / above
        fraction *= above * below
        if abs(above * below - 1) < 1e-15:
            break
    return math.exp(log_front) / (a * fraction)
