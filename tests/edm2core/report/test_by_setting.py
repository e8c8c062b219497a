"""A metric against the value of a swept setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edm2core.report.by_setting import same_snapshots, setting_figures
from edm2core.report.figures import Figure, Styles
from edm2core.report.html import render
from edm2core.report.results import rows
from edm2core.report.summary import tables
from tests.edm2core.report.figures.schema import valid

if TYPE_CHECKING:
    from conftest import Fake


def lines(figure: Figure) -> dict[str, list[Any]]:
    """The values of the setting along each line."""
    found: dict[str, list[Any]] = {}
    for row in figure.rows:
        found.setdefault(row["line"], []).append(row["at"])
    return found


def test_each_recipe_is_a_line_over_the_values_at_its_last_epoch(another: Callable[..., Fake]) -> None:
    report = another(add="sweep: {training.lr: [1e-2, 5e-3]}\n").report()
    fd, probe = setting_figures(report, rows(report), Styles.of(report))
    for figure in (fd, probe):
        assert valid(figure)
        assert lines(figure) == {f"digits/{c}": [0.005, 0.01] for c in "CEG"}
        assert [row["recipe"] for row in figure.rows[:2]] == ["digits/C lr=0.005", "digits/C lr=0.01"]  # whose colours the points have
        assert "epoch 60" in figure.caption
    assert fd.title == "FD (digits features) by training.lr"
    assert fd.spec["encoding"]["x"]["scale"]["type"] == "log"
    assert "By the swept setting" in render(report)
    assert report.plan.recipes["digits/E lr=0.005"].training.lr == 0.005


def test_of_two_settings_each_has_its_figure_and_the_other_tells_lines_apart(another: Callable[..., Fake]) -> None:
    fake = another({", digits/E, digits/G": ""}, add="sweep: {training.lr: [5e-3, 1e-2], network.clip: [null, 256]}\n")
    report = fake.report()
    lr, clip, *_ = setting_figures(report, rows(report), Styles.of(report))
    assert list(lines(lr)) == ["digits/C clip=none", "digits/C clip=256"]
    assert list(lines(clip)) == ["digits/C lr=0.005", "digits/C lr=0.01"]
    assert lines(clip)["digits/C lr=0.005"] == ["none", "256"]
    assert clip.spec["encoding"]["x"]["type"] == "nominal"


def test_what_only_evaluates_is_compared_on_the_same_snapshots(another: Callable[..., Fake]) -> None:
    fake = another({", digits/E, digits/G": ""}, add="sweep: {sample.precision: [fp32, bf16]}\n", make=False)
    for task in fake.tasks:
        halved = task.stage == "metrics" and task.subject.sweep.at == {"sample.precision": "bf16"}
        fake.commit(task, {"values": {"fd_digits": 40.4 - task.subject.epoch}} if halved else None)
    report = fake.report()
    found = rows(report)
    (fd,) = setting_figures(report, found, Styles.of(report))
    assert (fd.title, lines(fd)) == ("FD (digits features) by sample.precision", {"digits/C": ["fp32", "bf16"]})
    assert "18 steps" in fd.caption
    assert "precision swept" in fd.caption
    (compared,) = same_snapshots(report, found, Styles.of(report)).values()
    assert [(one.recipe, one.epoch, list(one.values)) for one in compared] == [("digits/C", e, ["fp32", "bf16"]) for e in (20, 40, 60)]
    last = compared[-1]
    assert last.change("bf16") == (last.values["bf16"] - last.values["fp32"]) / abs(last.values["fp32"])
    page = render(report)
    assert "The same snapshots by sample.precision" in page
    assert f"{100 * last.change('bf16'):+.2f} %" in page
    (table,) = tables(report, found)
    assert [line.epochs for line in table.lines] == [60, 60]  # both know what they cost, though one training was made


def test_trainings_that_differ_are_not_the_same_snapshots(another: Callable[..., Fake]) -> None:
    report = another(add="sweep: {training.lr: [1e-2, 5e-3]}\n").report()
    assert same_snapshots(report, rows(report), Styles.of(report)) == {}


def test_without_a_sweep_there_is_nothing(demo: Fake) -> None:
    assert setting_figures(demo.report(), rows(demo.report()), Styles.of(demo.report())) == []
