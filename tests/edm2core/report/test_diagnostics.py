"""What happens inside the networks, recipe beside recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edm2core.report.diagnostics import magnitude_figures, noise_figures
from edm2core.report.figures import Styles, training_figures
from edm2core.report.html import render
from edm2core.report.write import as_json
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake


@pytest.fixture
def inside(another: Callable[..., Fake]) -> Fake:
    return another(add="diagnostics: true\n")


def test_recipes_stand_together_and_each_has_its_levels(inside: Fake) -> None:
    report = inside.report()
    figures = {figure.id: figure for figure in magnitude_figures(report, Styles.of(report))}
    for figure in figures.values():
        assert valid(figure)
    assert list(figures) == ["activation", *(f"activation-{n}" for n in range(3)), "weight", *(f"weight-{n}" for n in range(3))]
    assert [(row["recipe"], row["value"]) for row in figures["weight"].rows] == [
        *(("digits/C", value) for value in (2.0, 4.0, 6.0)),
        *(("digits/E", 1.0),) * 3,
        *(("digits/G", 1.0),) * 3,
    ]
    levels = list(dict.fromkeys((row["part"], row["side"]) for row in figures["activation-0"].rows))
    assert levels == [("encoder", "8×8"), ("encoder", "4×4"), ("middle", "4×4"), ("decoder", "4×4"), ("decoder", "8×8")]


def test_levels_have_a_colour_scale_of_their_own(inside: Fake) -> None:
    report = inside.report()
    figure = next(f for f in magnitude_figures(report, Styles.of(report)) if f.id == "weight-0")
    assert figure.spec["encoding"]["color"] | {"legend": None} == {
        "field": "side",
        "type": "ordinal",
        "sort": ["8×8", "4×4"],
        "scale": {"domain": ["8×8", "4×4"]},
        "legend": None,
    }


def test_recipes_levels_are_drawn_on_one_scale(inside: Fake) -> None:
    report = inside.report()
    figures = [f for f in magnitude_figures(report, Styles.of(report)) if f.id.startswith("weight-")]
    ranges = [figure.spec["encoding"]["y"]["scale"]["domain"] for figure in figures]
    assert ranges == [ranges[0]] * 3
    assert ranges[0][0] < 1 < 6 < ranges[0][1]


def test_loss_and_log_variance_show_the_last_epoch_and_hold_the_others(inside: Fake) -> None:
    report = inside.report()
    loss, log_variance = noise_figures(report, Styles.of(report))
    for figure in (loss, log_variance):
        assert valid(figure)
        assert {row["epoch"] for row in figure.shown} == {60}
        assert {row["epoch"] for row in figure.rows} == {20, 40, 60}
        assert [mark.value for mark in figure.legend] == ["digits/C", "digits/E", "digits/G"]
    assert {row["kind"] for row in loss.rows} == {"on training images", "held out"}
    assert {row["kind"] for row in log_variance.rows} == {"u(σ)", "ln of the loss"}


def test_without_held_out_images_and_log_variance_there_are_fewer_lines(another: Callable[..., Fake]) -> None:
    fake = another(add="diagnostics: true\n", make=False)
    fake.metadata = {"diagnostics": {"test_loss": None, "log_variance": None, "train_loss": [1.0, None, 0.5]}}
    report = fake.make().report()
    (loss,) = noise_figures(report, Styles.of(report))
    assert {row["kind"] for row in loss.rows} == {"on training images"}
    assert [row["value"] for row in loss.shown[:3]] == [1.0, None, 0.5]


def test_a_network_that_diverged_leaves_gaps(another: Callable[..., Fake]) -> None:
    fake = another(add="diagnostics: true\n", make=False)
    none = {"activation": None, "weight": None}
    fake.metadata = {"diagnostics": {**none, "levels": [{"level": "middle 4", **none}], "train_loss": [None] * 3}}
    report = fake.make().report()
    assert "Inside the networks" in render(report)
    json.loads(as_json(report))


def test_the_page_and_the_numbers_have_it_only_where_it_was_asked_for(inside: Fake, another: Callable[..., Fake]) -> None:
    report = inside.report()
    assert "Inside the networks" in render(report)
    assert len(json.loads(as_json(report))["diagnostics"]) == 9


def test_without_diagnostics_the_page_says_nothing_of_them(demo: Fake) -> None:
    assert "Inside the networks" not in render(demo.report())


def test_the_size_of_updates_is_drawn_along_the_training(demo: Fake) -> None:
    report = demo.report()
    figure = next(figure for figure in training_figures(report, Styles.of(report)) if figure.id == "training-relative_update")
    assert list(dict.fromkeys(row["recipe"] for row in figure.rows)) == ["digits/C", "digits/E", "digits/G"]
    assert figure.log == ("x", "y")
