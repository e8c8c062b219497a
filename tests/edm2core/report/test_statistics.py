"""The comparison: its laws, scipy's numbers, and how often it errs and finds."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.report.statistics import ALPHA, Welch, holm, judge, t_p, t_quantile, welch

SIMULATIONS = 2000
SURE = 3  # Monte-Carlo standard errors; the seed is fixed, so that a passing simulation passes always
values = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=8)
families = st.lists(st.builds(Welch, st.floats(-20, 20), st.floats(0.1, 5), st.floats(1, 30)), min_size=1, max_size=10)


@settings(deadline=None)
@given(st.floats(0, 1e-4))
def test_p_near_zero_is_cauchys(t: float) -> None:
    """With one degree of freedom there is a closed form; scipy is off by 3e-9 at t = 1e-8."""
    assert t_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-12)


@settings(deadline=None)
@given(st.floats(1e-4, 60), st.floats(1, 200))
def test_p_is_scipys(t: float, freedom: float) -> None:
    assert t_p(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)


@settings(deadline=None)
@given(st.floats(1e-6, 0.5), st.floats(1, 200))
def test_the_quantile_is_the_inverse_of_p(alpha: float, freedom: float) -> None:
    assert t_p(t_quantile(alpha, freedom), freedom) == pytest.approx(alpha, rel=1e-9)


@settings(deadline=None)
@given(values, values)
def test_welch_is_scipys(one: list[float], other: list[float]) -> None:
    found = welch(one, other)
    if found is None:
        assert len(set(one)) == len(set(other)) == 1
        return
    expected = scipy.stats.ttest_ind(other, one, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.freedom == pytest.approx(expected.df, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert (found.difference - found.margin(0.05), found.difference + found.margin(0.05)) == pytest.approx(interval, rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(values, values)
def test_swapping_the_two_sides_changes_only_the_sign(one: list[float], other: list[float]) -> None:
    here, there = welch(one, other), welch(other, one)
    if here is None or there is None:
        assert here is there
        return
    assert (here.difference, here.p) == pytest.approx((-there.difference, there.p))


@pytest.mark.parametrize(("one", "other"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], []), ([1.0, 1.0], [2.0, 2.0]), ([0.0, 0.0], [0.0, 0.0])])
def test_one_value_or_no_spread_is_no_claim(one: list[float], other: list[float]) -> None:
    assert welch(one, other) is None


@settings(deadline=None)
@given(families)
def test_a_difference_stands_where_it_exceeds_the_smallest_that_would(family: list[Welch]) -> None:
    for test, verdict in zip(family, judge(family), strict=True):
        assert verdict.stands == (verdict.p <= ALPHA)
        assert verdict.p >= test.p
        if not math.isclose(abs(test.difference), verdict.smallest, rel_tol=1e-9):
            assert verdict.stands == (abs(test.difference) > verdict.smallest)


@settings(deadline=None)
@given(families, st.data())
def test_the_smallest_difference_is_where_the_verdict_changes(family: list[Welch], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(family) - 1))
    smallest = judge(family)[place].smallest
    for factor, stands in ((1 + 1e-6, True), (1 - 1e-6, False)):
        changed = [replace(test, difference=factor * smallest) if index == place else test for index, test in enumerate(family)]
        assert judge(changed)[place].stands is stands


def test_the_smallest_difference_beside_others_that_stand_needs_no_correction() -> None:
    """p of .001 and .002 in a family of two: beside the other, either would have stood up to .05, not .025."""
    family = [Welch(t_quantile(p, 9), 1, 9) for p in (0.001, 0.002)]
    assert [verdict.smallest for verdict in judge(family)] == pytest.approx([t_quantile(0.05, 9)] * 2)


@settings(deadline=None)
@given(families)
def test_an_interval_leaves_zero_out_exactly_where_its_difference_stands(family: list[Welch]) -> None:
    for verdict in judge(family):
        low, high = verdict.interval
        assert low <= high
        assert (not low <= 0 <= high) is verdict.stands or verdict.p == pytest.approx(ALPHA)


@settings(deadline=None)
@given(families, st.randoms(use_true_random=False))
def test_the_order_of_a_family_does_not_matter(family: list[Welch], order: random.Random) -> None:
    places = list(range(len(family)))
    order.shuffle(places)
    whole, shuffled = judge(family), judge([family[place] for place in places])
    for place, verdict in zip(places, shuffled, strict=True):
        assert verdict.p == pytest.approx(whole[place].p)


def test_p_values_are_adjusted_by_holms_steps() -> None:
    """p of .01, .02, .03, .04 become .04, .06, .06, .06: only the first stands."""
    family = [Welch(t_quantile(p, 9), 1, 9) for p in (0.02, 0.01, 0.04, 0.03)]
    found = judge(family)
    assert [verdict.p for verdict in found] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [verdict.stands for verdict in found] == [False, True, False, False]


def _share(seeds: int, pairs: int, differs: float, wanted: Callable[[list[float]], bool]) -> float:
    """Of how many experiments `wanted` is true of the adjusted p-values; the first pair's means are `differs` standard deviations
    apart, the others' equal."""
    noise = random.Random(7)
    count = 0
    for _ in range(SIMULATIONS):
        means = [(0.0, differs)] + [(0.0, 0.0)] * (pairs - 1)
        groups = [[[noise.gauss(mean, 1) for _ in range(seeds)] for mean in pair] for pair in means]
        count += wanted(holm([test.p for one, other in groups if (test := welch(one, other))]))
    return count / SIMULATIONS


def _error(share: float) -> float:
    """The Monte-Carlo standard error of a share."""
    return math.sqrt(share * (1 - share) / SIMULATIONS)


def _rate(one: int, other: int, times: float, draw: Callable[[random.Random], float]) -> float:
    """How often two groups of one mean are called apart, the first with `times` the deviation of the other."""
    noise, called = random.Random(11), 0
    for _ in range(SIMULATIONS):
        test = welch([times * draw(noise) for _ in range(one)], [draw(noise) for _ in range(other)])
        called += test is not None and test.p <= ALPHA
    return called / SIMULATIONS


def _normal(noise: random.Random) -> float:
    return noise.gauss(0, 1)


def _skewed(noise: random.Random) -> float:
    return noise.expovariate(1) - 1


@pytest.mark.parametrize(
    ("one", "other", "times", "draw", "share"),
    [
        (2, 6, 1, _normal, 0.075),
        (2, 6, 3, _normal, 0.11),
        (6, 2, 3, _normal, 0.042),
        (6, 6, 3, _normal, 0.052),
        (6, 6, 3, _skewed, 0.096),
        (3, 6, 3, _skewed, 0.14),
        (2, 6, 3, _skewed, 0.18),
    ],
)
def test_unequal_spread_and_number_err_as_often_as_the_docs_say(
    one: int, other: int, times: float, draw: Callable[[random.Random], float], share: float
) -> None:
    assert _rate(one, other, times, draw) == pytest.approx(share, abs=SURE * _error(share))


def _found(adjusted: list[float]) -> bool:
    return adjusted[0] <= ALPHA


@pytest.mark.parametrize(("seeds", "pairs"), [(2, 1), (3, 1), (6, 1), (3, 9)])
def test_equal_recipes_are_called_different_at_most_as_often_as_alpha(seeds: int, pairs: int) -> None:
    quiet = _share(seeds, pairs, 0.0, lambda adjusted: min(adjusted) > ALPHA)
    assert quiet >= 0.95 - SURE * _error(0.95)


def test_six_seeds_find_two_standard_deviations_in_one_predeclared_comparison() -> None:
    found = _share(6, 1, 2.0, _found)
    assert found - SURE * _error(found) >= 0.80


@pytest.mark.slow
def test_correction_and_few_seeds_cost_what_the_docs_say() -> None:
    shares = {(seeds, pairs): _share(seeds, pairs, 2.0, _found) for seeds in (3, 6) for pairs in (1, 9)}
    for case, share in {(3, 1): 0.37, (3, 9): 0.05, (6, 1): 0.88, (6, 9): 0.46}.items():
        assert shares[case] == pytest.approx(share, abs=SURE * _error(0.5))
    assert shares[6, 1] > shares[6, 9] > shares[3, 9]
    assert shares[6, 1] > shares[3, 1]
