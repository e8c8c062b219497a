"""Means and spreads over seeds, and the differences that stand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edm2core.report.html import render
from edm2core.report.results import Row
from edm2core.report.seeds import differences, seed_tables, spreads
from edm2core.report.write import as_csv, as_json

if TYPE_CHECKING:
    from conftest import Fake


def _rows(
    values: dict[str, list[float]], epoch: int = 10, metric: str = "fid", draws: int = 1, ema: str = "fixed", protocol: str = "p"
) -> list[Row]:
    return [
        Row("cifar10", recipe, seed, epoch, ema, draw, 50_000, protocol, metric, value + 0.25 * draw)
        for recipe, found in values.items()
        for seed, value in enumerate(found)
        for draw in range(draws)
    ]


FAR = {"C": [5.0, 5.1, 4.9], "E": [3.0, 3.1, 2.9]}


def test_a_spread_is_over_seeds_and_draws_are_apart() -> None:
    (found,) = spreads(_rows({"C": [5.0, 5.1, 4.9]}, draws=3))
    assert (found.mean, found.deviation, found.draws_deviation) == pytest.approx((5.25, 0.1, 0.25))
    assert len(found.values) == 3


def test_a_planted_difference_stands_and_names_the_better() -> None:
    (found,) = differences(spreads(_rows(FAR)))
    assert found.words == "E is better"
    assert found.judgement
    assert found.judgement.interval[0] < found.difference < found.judgement.interval[1] < 0
    (higher,) = differences(spreads(_rows(FAR, metric="probe_accuracy")))
    assert higher.words == "C is better"


def test_an_equal_pair_shows_no_difference() -> None:
    (found,) = differences(spreads(_rows({"C": [5.0, 5.1, 4.9], "E": [5.05, 4.95, 5.0]})))
    assert found.words == "no difference shown"
    assert found.judgement
    assert abs(found.difference) < found.judgement.smallest


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"C": [5.0], "E": [3.0]}, "one seed: no claim"),
        ({"C": [5.0, 5.0], "E": [3.0, 3.0]}, "no spread between seeds: no claim"),
    ],
)
def test_what_cannot_be_said_is_said_so(values: dict[str, list[float]], words: str) -> None:
    (found,) = differences(spreads(_rows(values)))
    assert (found.words, found.judgement) == (words, None)


def test_more_epochs_and_pairs_correct_each_other_and_metrics_do_not() -> None:
    def p(rows: list[Row]) -> float:
        return next(d.judgement.p for d in differences(spreads(rows)) if d.judgement and (d.measure.metric, d.epoch) == ("fid", 10))

    alone = p(_rows(FAR))
    assert p(_rows(FAR) + _rows(FAR, epoch=20)) == pytest.approx(2 * alone)
    assert p(_rows(FAR) + _rows(FAR, metric="kid")) == pytest.approx(alone)


def test_values_of_different_protocols_or_averages_are_never_compared() -> None:
    mine, theirs = {"C": [5.0, 5.1]}, {"E": [3.0, 3.1]}
    assert not differences(spreads(_rows(mine) + _rows(theirs, protocol="other")))
    assert not differences(spreads(_rows(mine) + _rows(theirs, ema="0.050")))


def test_values_of_different_numbers_of_images_are_never_compared() -> None:
    fewer = [replace(row, n=10_000) for row in _rows({"E": FAR["E"]})]
    found = spreads(_rows({"C": FAR["C"]}) + fewer)
    assert not differences(found)
    assert list(seed_tables(found)) == ["FID · n = 50000", "FID · n = 10000"]


def test_every_mean_and_difference_leads_to_the_results_it_is_of(another: Callable[..., Fake]) -> None:
    fake = another({"seeds: [0]": "seeds: [0, 1]", "steps: 18": "steps: 18, draws: 2", "20, 40, 60": "20"})
    page = render(fake.report())
    section = page[page.index("Over training seeds</h2>") : page.index('<section id="confusion"')]
    for task in fake.tasks:
        if task.stage in ("metrics", "probe") and task.subject.recipe:
            assert section.count(f'href="../../{task.ref.manifest}"') == 1 + 2  # its recipe's mean, and two differences
    assert "2 seeds (" in section
    assert "· n = 2000" in section


def test_every_file_has_every_spread_and_difference(another: Callable[..., Fake]) -> None:
    report = another({"seeds: [0]": "seeds: [0, 1, 2]"}).report()
    found, tables = json.loads(as_json(report)), as_csv(report)
    one = next(s for s in found["seeds"] if (s["recipe"], s["epoch"], s["metric"]) == ("digits/C", 20, "fd_digits"))
    assert (one["seeds"], one["n"]) == (3, 2000)
    assert one["deviation"] > 0
    assert len(found["differences"]) == 2 * 3 * 3  # metrics, epochs, pairs
    for name in ("seeds", "differences"):
        read = list(csv.DictReader(io.StringIO(tables[f"{name}.csv"])))
        assert [{k: "" if v is None else str(v) for k, v in line.items()} for line in found[name]] == read
    page = render(report)
    for difference in found["differences"]:
        assert difference["verdict"] in page
    assert "Over training seeds" in page


def test_one_seed_makes_no_claim(demo: Fake) -> None:
    report = demo.report()
    found = json.loads(as_json(report))["differences"]
    assert {difference["verdict"] for difference in found} == {"one seed: no claim"}
    assert {difference["p_corrected"] for difference in found} == {None}
    assert "Over training seeds" not in render(report)
