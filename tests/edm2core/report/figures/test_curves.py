"""Metrics along the training as figures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.report.figures import Styles, metric_figures, training_figures
from edm2core.report.figures.axes import epochs, number
from edm2core.report.figures.curves import over_seeds
from edm2core.report.results import Row, rows
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake

ROW = Row("digits", "digits/C", 0, 20, "fixed", 0, 2000, "18 steps", "fd_digits", 1.0)
ONE = Styles(["digits/C"], [0, 1], ["fixed"])


def layers(figure: Any, kind: str) -> list[dict[str, Any]]:
    return [layer for layer in figure.spec["layer"] if layer["mark"]["type"] == kind]


def test_several_seeds_are_a_mean_a_deviation_and_themselves() -> None:
    (figure,) = metric_figures([ROW, replace(ROW, seed=1, value=3.0)], ONE)
    mean, *singles = figure.rows
    assert (mean["seed"], mean["seeds"], mean["value"]) == (None, 2, 2.0)
    assert (mean["low"], mean["high"]) == pytest.approx((2 - 2**0.5, 2 + 2**0.5))
    assert [(row["seed"], row["value"]) for row in singles] == [(0, 1.0), (1, 3.0)]
    assert figure.has_seeds
    assert figure.spec["params"] == [{"name": "seeds", "value": False}]  # single seeds on demand
    assert "Mean over 2 training seeds" in figure.caption
    assert valid(figure)


def test_one_seed_has_no_band_and_nothing_more_to_show() -> None:
    (figure,) = metric_figures([ROW], ONE)
    assert not figure.has_seeds
    assert layers(figure, "area") == []
    assert "band" not in figure.caption


def test_the_error_of_sampling_is_a_bar_and_shrinks_with_draws_and_seeds() -> None:
    same = [replace(ROW, seed=seed, draw=draw, error=0.4) for seed in (0, 1) for draw in (0, 1)]
    (figure,) = metric_figures(same, ONE)
    mean = figure.rows[0]
    assert mean["error"] == pytest.approx(0.2)
    assert (mean["error_low"], mean["error_high"]) == pytest.approx((0.8, 1.2))
    assert figure.rows[1]["error"] == pytest.approx(0.4 / 2**0.5)
    assert "Bars are one standard error" in figure.caption
    (without,) = metric_figures([replace(ROW, error=None)], ONE)
    assert "Bars" not in without.caption


def test_the_axis_says_the_metric_and_which_way_is_better(demo: Fake) -> None:
    fd, probe = metric_figures(rows(demo.report()), Styles.of(demo.report()))
    titles = [layers(figure, "line")[0]["encoding"]["y"]["axis"]["title"] for figure in (fd, probe)]
    assert titles == ["↓ FD (digits features) · lower is better", "↑ Linear probe, % · higher is better"]
    assert fd.log == ("x", "y")
    assert probe.log == ("x",)


def test_epochs_are_whole_numbers() -> None:
    assert epochs([20, 40, 60])["axis"]["values"] == [20, 40, 60]
    many = epochs(range(100))["axis"]
    assert (many["tickMinStep"], many["format"]) == (1, ",.0f")
    assert epochs([20])["scale"]["domain"] == [18, 22]


@pytest.mark.parametrize("value", [0.0, 0.01, -3.0, 95.83])
def test_values_that_are_all_the_same_stand_in_the_middle_of_their_axis(value: float) -> None:
    low, high = number("value", "", [value, value * (1 + 1e-9)])["scale"]["domain"]
    assert low < value < high
    assert value - low == pytest.approx(high - value)
    assert "domain" not in number("value", "", [value, value + 1])["scale"]


def test_a_recipe_has_one_colour_and_an_average_one_dash_in_every_figure(full: Fake) -> None:
    report = full.report()
    styles = Styles.of(report)
    figures = [*metric_figures(rows(report), styles), *training_figures(report, styles)]
    assert {tuple(figure.spec["encoding"]["color"]["scale"]["domain"]) for figure in figures} == {("digits/C", "digits/E", "digits/G")}
    dashes = [
        layer["encoding"]["strokeDash"] for figure in figures for layer in layers(figure, "line") if "strokeDash" in layer["encoding"]
    ]
    assert dashes
    assert all(dash["field"] == "ema" and dash["scale"] == dashes[0]["scale"] for dash in dashes)
    assert all(valid(figure) for figure in figures)


def test_beyond_the_eighth_recipe_colour_and_shape_are_a_pair_of_their_own() -> None:
    styles = Styles([f"r{number}" for number in range(20)], [0], [])
    pairs = {(mark.color and mark.color % 8, mark.shape) for mark in styles.marks(styles.recipes)}
    assert len(pairs) == 20


def test_values_of_different_numbers_of_images_never_share_a_figure() -> None:
    assert len(metric_figures([ROW, replace(ROW, n=50_000)], ONE)) == 2


def test_a_value_that_is_not_there_leaves_a_gap() -> None:
    cells = over_seeds("epoch", {20: {0: 1.0}, 40: {0: None}})
    assert [cell["value"] for cell in cells] == [1.0, None]
