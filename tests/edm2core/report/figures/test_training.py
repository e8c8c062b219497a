"""Curves of the training as figures."""

import pytest

from edm2core.report.figures import Styles, curve_figures
from edm2core.report.figures.training import POINTS
from tests.edm2core.report.figures.schema import valid

STYLES = Styles(["a", "b"], [0, 1], [])


def curve(recipe: str, seed: int, *, points: int = 10, lr: float = 0.1) -> tuple[str, int, list[dict[str, float]]]:
    return recipe, seed, [{"epoch": n + 1.0, "step": n + 1, "loss": 1.0 + seed, "lr": lr} for n in range(points)]


def test_long_curves_are_means_of_equal_parts_of_the_training() -> None:
    loss, _ = curve_figures([curve("a", 0, points=4 * POINTS)], STYLES)
    assert len(loss.rows) == POINTS
    assert loss.rows[-1]["epoch"] == 4 * POINTS
    assert loss.rows[0]["epoch"] == 4.0
    assert f"a {POINTS}th" in loss.caption


def test_seeds_that_were_logged_alike_have_a_mean() -> None:
    loss, lr = curve_figures([curve("a", 0), curve("a", 1)], STYLES)
    assert {(row["value"], row["seeds"]) for row in loss.rows if row["seed"] is None} == {(1.5, 2)}
    assert (loss.has_seeds, lr.has_seeds) == (True, True)
    assert valid(loss)


def test_equal_schedules_are_all_seen() -> None:
    _, lr = curve_figures([curve("a", 0), curve("b", 0)], STYLES)
    breadths = {row["recipe"]: row["breadth"] for row in lr.rows}
    assert breadths["a"] > breadths["b"]
    assert "strokeWidth" not in lr.spec["layer"][-1]["mark"]  # which would win over the column


def test_values_that_are_not_finite_are_left_out() -> None:
    recipe, seed, lines = curve("a", 0)
    lines[3]["loss"] = float("nan")
    loss, _ = curve_figures([(recipe, seed, lines)], STYLES)
    assert len(loss.rows) == 9


def test_a_quantity_that_nobody_logged_has_no_figure() -> None:
    assert [figure.id for figure in curve_figures([curve("a", 0)], STYLES)] == ["training-loss", "training-lr"]
    assert curve_figures([], STYLES) == []


def test_one_point_is_a_figure() -> None:
    loss, _ = curve_figures([curve("a", 0, points=1)], STYLES)
    assert loss.rows[0]["value"] == pytest.approx(1.0)
