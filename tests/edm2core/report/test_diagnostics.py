"""What happens inside the networks, recipe beside recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import pytest

from edm2core.report.diagnostics import magnitude_figures, noise_figures
from edm2core.report.figures import Styles, training_figures
from edm2core.report.html import render
from edm2core.report.write import as_json

if TYPE_CHECKING:
    from conftest import Fake


@pytest.fixture
def inside(another: Callable[..., Fake]) -> Fake:
    return another(add="diagnostics: true\n")


def test_recipes_stand_together_and_each_has_its_levels(inside: Fake) -> None:
    report = inside.report()
    figures = {figure.id: figure for figure in magnitude_figures(report, Styles.of(report))}
    for figure in figures.values():
        go.Figure(figure.plot)  # raises for a property that plotly does not have
    assert list(figures) == ["activation", *(f"activation-{n}" for n in range(3)), "weight", *(f"weight-{n}" for n in range(3))]
    assert [(trace["name"], trace["y"]) for trace in figures["weight"].plot["data"]] == [
        ("digits/C", [2.0, 4.0, 6.0]),
        ("digits/E", [1.0, 1.0, 1.0]),
        ("digits/G", [1.0, 1.0, 1.0]),
    ]
    names = [line["name"] for line in figures["activation-0"].legend]
    assert names == ["encoder 8×8", "encoder 4×4", "middle 4×4", "decoder 4×4", "decoder 8×8"]


def test_recipes_levels_are_drawn_on_one_scale(inside: Fake) -> None:
    report = inside.report()
    figures = [f for f in magnitude_figures(report, Styles.of(report)) if f.id.startswith("weight-")]
    ranges = [figure.plot["layout"]["yaxis"]["range"] for figure in figures]
    assert ranges == [ranges[0]] * 3
    assert ranges[0][0] < 0 < 0.77 < ranges[0][1]  # log10 of 1 … 6


def test_loss_and_log_variance_show_the_last_epoch_and_hold_the_others(inside: Fake) -> None:
    report = inside.report()
    loss, log_variance = noise_figures(report, Styles.of(report))
    for figure in (loss, log_variance):
        go.Figure(figure.plot)
        assert {trace["meta"]["epoch"] for trace in figure.plot["data"] if trace["visible"]} == {60}
        assert {trace["meta"]["epoch"] for trace in figure.plot["data"]} == {20, 40, 60}
        assert len(figure.legend) == 6
    assert [line["name"] for line in loss.legend][:2] == ["digits/C", "digits/C · held out"]


def test_without_held_out_images_and_log_variance_there_are_fewer_lines(another: Callable[..., Fake]) -> None:
    fake = another(add="diagnostics: true\n", make=False)
    fake.metadata = {"diagnostics": {"test_loss": None, "log_variance": None, "train_loss": [1.0, None, 0.5]}}
    report = fake.make().report()
    (loss,) = noise_figures(report, Styles.of(report))
    assert len(loss.legend) == 3


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
    assert [trace["name"] for trace in figure.plot["data"]] == ["digits/C", "digits/E", "digits/G"]
    assert figure.log
