"""The faults of a chaos run, and what is said of their cost. The run itself needs a cluster: `python -m tests.cluster.chaos`."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cluster.chaos_report import KINDS, Happened, Row, account, as_json, bars, equality_in_words, losses_in_words, schedule

BARS = bars(hang_s=30)
some_kinds = st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True)


def trained(standstills: dict[float, float], seconds: float = 600, pace: float = 0.05, again: int = 0) -> list[Row]:
    """A row a second of a training that stands still for so many seconds at these times, and then trains `again` steps once more."""
    rows, now, step = list[Row](), 0.0, 0
    for begin, lasts in [*sorted(standstills.items()), (seconds, 0.0)]:
        while now < begin:
            rows.append(Row(now, step))
            now, step = now + 1, step + round(1 / pace)
        now, step = now + lasts, step - again
    return rows


def test_what_may_be_lost_is_as_stated() -> None:
    assert BARS == {"pod": 15, "both": 25, "launcher": 3, "stop": 50, "store": 3, "drain": 35, "policies": 3, "api": 3}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), some_kinds, st.integers(0, 200), st.floats(1, 300))
def test_each_kind_comes_equally_often(seed: int, kinds: list[str], count: int, every_s: float) -> None:
    faults = schedule(seed, kinds, every_s * (count + 0.5), every_s)
    assert len(faults) == count
    times = Counter(fault.kind for fault in faults)
    assert max((times[kind] for kind in kinds), default=0) - min((times[kind] for kind in kinds), default=0) <= 1
    assert times.keys() <= set(kinds)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), some_kinds)
def test_a_seed_gives_the_same_faults_with_time_between_them(seed: int, kinds: list[str]) -> None:
    faults = schedule(seed, kinds, 3600, 120)
    assert faults == schedule(seed, kinds, 3600, 120)
    assert all(after.at_s - before.at_s >= 80 for before, after in pairwise(faults))
    assert {fault.pod for fault in faults} <= {0, 1}


def test_another_seed_gives_other_faults() -> None:
    assert schedule(1, list(KINDS), 3600, 120) != schedule(2, list(KINDS), 3600, 120)


def test_without_any_kind_there_is_no_fault() -> None:
    assert schedule(1, [], 3600, 120) == []


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(list(KINDS)), st.floats(0, 1)), min_size=1, max_size=5),
    st.integers(0, 40),
    st.floats(0.01, 0.2),
)
def test_goodput_is_what_the_bars_allow_or_more_where_each_loss_is_within_its_bar(
    faults: list[tuple[str, float]], again: int, pace: float
) -> None:
    standstills = {100.0 * (n + 1) + sum(s * BARS[k] for k, s in faults[:n]): share * BARS[kind] for n, (kind, share) in enumerate(faults)}
    happened = [Happened(kind, begin) for (kind, _), begin in zip(faults, standstills, strict=True)]
    found = account(trained(standstills, 700, pace, again), happened, BARS, 0.0)
    assert found.wall_s == pytest.approx(sum(loss.lost_s for loss in found.losses) + found.goodput * found.wall_s)
    if all(loss.within for loss in found.losses) and found.losses[0].lost_s <= 1e-6:
        assert found.goodput >= found.bound - 1e-9


def test_a_fault_costs_its_standstill_and_the_steps_that_are_trained_again() -> None:
    rows = trained({100: 12.0, 300: 0.0}, again=40)  # 40 steps take 2 s
    found = account(rows, [Happened("pod", 100.3), Happened("api", 300.2)], BARS, 0.0)
    before, killed, away = found.losses
    assert before.lost_s == pytest.approx(0)
    assert killed.lost_s == pytest.approx(14, abs=1)
    assert killed.within
    assert away.lost_s == pytest.approx(2, abs=1)


def test_a_training_at_another_pace_after_a_fault_has_lost_nothing() -> None:
    slow = [Row(600.0 + 2 * number, 12_000 + 20 * number) for number in range(60)]
    found = account([*trained({}, 600), *slow], [Happened("store", 600.0)], BARS, 0.0)
    assert found.goodput == pytest.approx(1)


def test_a_kind_that_costs_more_than_its_bar_is_told() -> None:
    found = account(trained({100: 40.0}), [Happened("pod", 100.0, load=7.2)], BARS, 0.0)
    assert not found.losses[1].within
    assert found.goodput < found.bound
    words = losses_in_words(found, {"api": "No process of the API server was named."})
    assert "| a pod is killed | 1 | 40.0 | 15 s | 1 over the bar |" in words
    assert "LESS than" in words
    assert "Load of this machine at the faults: 7 to 7 processes" in words
    assert "Left out: the API server is away for 20 s. No process of the API server was named." in words


def test_unequal_results_are_told_loudly() -> None:
    assert "Results are equal" in equality_in_words(1e-6, 1e-3)
    assert "Results are NOT EQUAL" in equality_in_words(0.1, 1e-3)


def test_the_report_is_json() -> None:
    found = account(trained({100: 5.0}), [Happened("pod", 100.0)], BARS, 0.0)
    read = json.loads(json.dumps(as_json(found, 0.0, seed=3)))
    assert read["seed"] == 3
    assert [fault["kind"] for fault in read["faults"]] == ["", "pod"]


def test_nothing_is_said_of_a_training_that_made_no_step() -> None:
    with pytest.raises(ValueError, match="no progress"):
        account([Row(0.0, 0)], [], BARS, 0.0)


def test_a_standstill_until_the_end_is_the_loss_of_the_fault_that_began_it() -> None:
    found = account(trained({}, 200), [Happened("both", 200.5), Happened("pod", 280.0)], BARS, end=402.0)
    _, both, pod = found.losses
    assert both.lost_s == pytest.approx(200, abs=3)
    assert pod.lost_s == 0
    assert found.goodput == pytest.approx(0.5, abs=0.01)


def test_a_fault_in_a_standstill_costs_only_what_comes_after_it() -> None:
    found = account(trained({100: 60.0}), [Happened("both", 100.2), Happened("pod", 140.0)], BARS, end=0.0)
    _, both, pod = found.losses
    assert both.lost_s == pytest.approx(60, abs=2)
    assert pod.lost_s == pytest.approx(0, abs=1e-6)
