"""The answer first: who is better, by how much, and whether that is shown; nothing that is not comparable in one sentence."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from edm2core.report.html import render
from edm2core.report.results import Row
from edm2core.report.seeds import differences, spreads
from edm2core.report.statistics import ALPHA, judge, welch
from edm2core.report.verdict import Verdict, headlines, verdicts
from edm2core.report.verdict_drawing import drawn
from edm2core.report.write import as_json
from tests.edm2core.report.conftest import Fake
from tests.edm2core.report.test_html import Page
from tests.edm2core.report.test_seeds import _rows

FAR = {"x/C": [5.0, 5.1, 4.9], "x/E": [3.0, 3.1, 2.9]}
NEAR = {"x/C": [50.0, 55.1, 44.9], "x/E": [43.0, 43.1, 52.9]}


def _verdicts(rows: list[Row]) -> list[Verdict]:
    found = spreads(rows)
    return verdicts(found, differences(found))


def _sentence(values: dict[str, list[float]], metric: str = "fid") -> str:
    (verdict,) = _verdicts(_rows(values, metric=metric))
    return verdict.sentence


def test_what_is_shown_names_winner_loser_and_all_that_it_rests_on() -> None:
    (found,) = _verdicts(_rows(FAR))
    (difference,) = differences(spreads(_rows(FAR)))
    assert (found.kind, found.winner, found.loser, found.epoch, found.seeds) == ("shown", "x/E", "x/C", 10, (3, 3))
    assert difference.judgement
    assert (found.difference, found.p_corrected) == (abs(difference.difference), difference.judgement.p)
    assert found.interval == tuple(sorted(map(abs, difference.judgement.interval)))
    assert found.sentence == "E beats C by 2.00 FID at epoch 10 (3 seeds, corrected p < .001)."


@pytest.mark.parametrize(
    ("values", "metric", "sentence"),
    [
        (
            NEAR,
            "fid",
            "No difference shown between E and C: 4 FID apart at epoch 10 (3 seeds, corrected p = .45); "
            "with 6 seeds of each, a gap of 7 FID would be shown.",
        ),
        ({"x/C": [50.0], "x/E": [43.0]}, "fid", "One seed: no claim. FID at epoch 10: E 43.00, C 50.00."),
        ({"x/C": [50.0, 50.0], "x/E": [43.0, 43.0]}, "kid", "No spread between seeds: no claim. KID at epoch 10: E 43.00, C 50.00."),
        ({"x/C": [50.0, 51.0]}, "fid", "One recipe, so nothing to compare: FID C 50.50 at epoch 10 (2 seeds)."),
        (
            {"x/C": [90.0, 90.5, 90.7], "x/E": [95.0, 95.1, 95.2]},
            "probe_accuracy",
            "E beats C by 4.70 points at epoch 10 (3 seeds, corrected p = .001).",
        ),
        (
            FAR | {"x/G": [3.05, 3.2, 2.85]},
            "fid",
            "No difference shown between E and G: 0.03 FID apart at epoch 10 (3 seeds, corrected p = .79); "
            "with 6 seeds of each, a gap of 0.19 FID would be shown. "
            "Shown: E beats C by 2.00 FID, G beats C by 1.97 FID.",
        ),
        (
            {f"x/{i}": [i, i + 0.1, i - 0.1] for i in range(6)},
            "fid",
            "0 beats all 5 others, by 1.00 FID or more at epoch 10 (3 seeds, corrected p ≤ .001).",
        ),
        (FAR | {"x/G": [9.0]}, "fid", "E beats C by 2.00 FID at epoch 10 (3 seeds, corrected p < .001). G: one seed, no claim."),
    ],
)
def test_the_sentence(values: dict[str, list[float]], metric: str, sentence: str) -> None:
    assert _sentence(values, metric) == sentence


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0])
def test_the_interval_of_a_pair_holds_zero_exactly_where_nothing_is_shown(apart: float) -> None:
    values = {"x/C": [0.0, 1.0, 2.0], "x/E": [apart, apart + 0.4, apart + 1.1], "x/G": [8.0, 9.5, 9.0]}
    (found,) = _verdicts(_rows(values))
    assert len(found.pairs) == 3
    assert all((pair.interval[0] <= 0 <= pair.interval[1]) is not pair.shown for pair in found.pairs)


def test_more_seeds_would_show_what_the_same_test_calls_with_as_many() -> None:
    one, other = [1.0, 2.0, 4.0], [3.0, 3.5, 5.0]
    (found,) = _verdicts(_rows({"C": one, "E": other}))
    (pair,) = found.pairs
    assert pair.more_seeds == 6
    assert pair.would_show < pair.smallest
    middle = sum(one) / 3
    spread = [middle + (value - middle) * (5 / 4) ** 0.5 for value in one] * 2  # six values with the same variance
    lower = [value - sum(other) / 3 for value in other]
    for factor, stands in ((1.001, True), (0.999, False)):
        shifted = [middle + factor * pair.would_show + value * (5 / 4) ** 0.5 for value in lower] * 2
        test = welch(spread, shifted)
        assert test
        assert (judge([test])[0].p <= ALPHA) is stands


def test_only_where_nobody_is_shown_to_be_better_a_recipe_leads() -> None:
    (found,) = _verdicts(_rows(FAR | {"x/G": [3.05, 3.2, 2.85]}))
    assert {mean.recipe: mean.leads for mean in found.means} == {"x/E": True, "x/G": True, "x/C": False}
    (found,) = _verdicts(_rows(NEAR))
    assert not any(mean.leads for mean in found.means)


def test_what_was_measured_in_another_way_has_its_own_sentence_without_the_others() -> None:
    odd = [replace(row, n=70) for row in _rows({"x/G": [4.0, 4.1, 4.2]})]
    found = _verdicts(_rows(FAR) + odd)
    assert [verdict.kind for verdict in found] == ["shown", "not_comparable"]
    assert "G" not in found[0].sentence
    assert found[1].sentence == "G was measured in another way than the rest, so it is not compared with it."
    assert all(verdict.headline for verdict in found)


def test_the_first_metric_of_samples_and_of_probes_are_headlines_with_the_fixed_average() -> None:
    rows = [row for metric in ("kid", "fid", "probe_accuracy", "knn_accuracy") for row in _rows(FAR, metric=metric)]
    found = _verdicts(rows + _rows(FAR, ema="0.050"))
    assert [(v.metric, v.ema) for v in found if v.headline] == [("fid", "fixed"), ("probe_accuracy", "fixed")]
    assert len(found) == 5
    assert headlines(found)[0].startswith("cifar10 · FID: E beats C by 2.00 FID")


def test_while_a_run_goes_on_the_last_epoch_that_all_seeds_have_is_judged() -> None:
    (found,) = _verdicts(_rows(FAR) + _rows({"x/E": [2.0]}, epoch=20))
    assert (found.epoch, found.kind) == (10, "shown")


def test_the_drawing_keeps_every_mark_on_its_axis() -> None:
    for values in (FAR, NEAR, {"x/C": [50.0], "x/E": [50.0]}):
        (found,) = _verdicts(_rows(values))
        marks = [mark for row in drawn(found).rows for mark in (row.at, *row.seeds, *(row.line or ()))]
        assert min(marks) >= 0
        assert max(marks) <= 100


def test_page_and_file_say_the_same_and_lead_to_the_table_behind(another: Callable[..., Fake]) -> None:
    report = another({"seeds: [0]": "seeds: [0, 1, 2]"}).report()
    found = json.loads(as_json(report))["verdicts"]
    page = Page(render(report))
    assert len(found) == 2
    for verdict in found:
        assert verdict["sentence"] in page.text
    links = [str(a["href"]) for tag, a in page.elements if tag == "a" and str(a.get("href")).startswith("#seeds-table-")]
    assert sorted(links) == ["#seeds-table-0", "#seeds-table-1"]
    assert {link[1:] for link in links} <= set(page.ids())
    assert page.text.index(found[0]["sentence"]) < page.text.index("best of 3")
