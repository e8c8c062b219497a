from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.plan.tasks import trajectory_ref
from edm2core.report import Report
from edm2core.report.tracked import Tracked, epoch_means, tracked

if TYPE_CHECKING:
    from conftest import Fake


def of(report: Report, recipe: str = "digits/C", live: dict[Any, Any] | None = None) -> Tracked:
    return next(training for training in tracked(report, "run-1", live or {}) if training.parameters["recipe"] == recipe)


def values(training: Tracked, metric: str) -> dict[int, float]:
    return {point.epoch: point.value for point in training.points if point.metric == metric}


def test_a_training_has_its_recipe_flat_its_metrics_by_epoch_and_where_everything_is(demo: Fake) -> None:
    found = tracked(demo.report(), "run-1", {})
    assert [training.name for training in found] == [f"digits/{config} · seed 0" for config in "CEG"]
    training = found[0]
    assert training.parameters.items() >= {"recipe": "digits/C", "seed": "0", "network.channels": "32", "sample.count": "2000"}.items()
    assert values(training, "fd_digits").keys() == values(training, "probe_accuracy").keys() == {20, 40, 60}
    assert values(training, "fd_digits")[60] < values(training, "fd_digits")[20]
    assert max(values(training, "loss")) == 60
    assert all(point.time > 1e9 for point in training.points)
    assert training.tags["edm2.report"] == f"{demo.store.uri}/runs/run-1/report.html"
    assert "2000 samples vs 1437 training images" in training.tags["edm2.protocol.fd_digits"]
    (snapshot,) = [result for result in training.results if result["result"] == str(demo.find("snapshot", recipe="digits/C", epoch=60).ref)]
    assert snapshot["location"].startswith(f"{demo.store.uri}/results/snapshot/")
    assert len(snapshot["files"]["curve.jsonl"]["sha256"]) == 64
    assert training.data is not None
    assert training.undone == ()


def test_epochs_asked_for_and_how_work_is_done_make_no_other_training(another: Callable[..., Fake], demo: Fake) -> None:
    longer = another({"epochs: [20, 40, 60]": "epochs: [20, 60]", "steps: 18": "steps: 18, batch: 7"}, make=False)
    here, there = of(longer.report()), of(demo.report())
    assert here.tags["edm2.setting.sample.batch"] == "7"
    assert here.parameters == there.parameters
    assert here.undone == ("missing",) * 8


@pytest.mark.parametrize("change", [{"count: 2000": "count: 1000"}, {"seeds: [0]": "seeds: [1]"}, {"lr: 4.0e-3": "lr: 1.0e-3"}])
def test_a_setting_that_decides_results_makes_another_training(another: Callable[..., Fake], change: dict[str, str]) -> None:
    plain = another({"epochs: [20, 40, 60]": "epochs: [60]"}, make=False)
    changed = another({"epochs: [20, 40, 60]": "epochs: [60]", **change}, make=False)
    assert of(plain.report()).identity != of(changed.report()).identity


def test_draws_are_one_point_once_all_are_there(another: Callable[..., Fake]) -> None:
    fake = another({"count: 2000": "count: 2000, draws: 3"}, make=False)
    late = fake.find("metrics", recipe="digits/C", epoch=40, draw=2)
    training = of(fake.make(lambda task: task == late).report())
    assert values(training, "fd_digits").keys() == {20, 60}
    fake.commit(late)
    assert values(of(fake.report()), "fd_digits").keys() == {20, 40, 60}


def test_several_averages_are_several_metrics(another: Callable[..., Fake]) -> None:
    training = of(another({"count: 2000": "count: 2000, ema: [fixed, 0.05]"}).report())
    assert {point.metric for point in training.points} >= {"fd_digits/ema fixed", "fd_digits/ema 0.050", "probe_accuracy"}


def test_a_training_that_goes_on_is_seen_between_snapshots(another: Callable[..., Fake]) -> None:
    fake = another(make=False)
    fake.make(lambda task: task.stage != "prepare" and task.subject.epoch != 20)
    ref = trajectory_ref(fake.find("snapshot", recipe="digits/C"))
    rows = [{"step": step, "epoch": step / 23, "loss": 0.5, "lr": 0.1, "time": 2e9} for step in (470, 483, 490, 506)]
    stored = values(of(fake.report()), "loss")
    live = values(of(fake.report(), live={ref: rows}), "loss")
    assert live == stored | {21: 0.5, 22: 0.5}


def test_the_curve_is_thinned_to_the_mean_of_every_epoch_whose_steps_are_known() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 50, "epoch": 0.5, "loss": 3.0, "lr": 0.1},
        {"step": 100, "epoch": 1.0, "loss": 1.0, "lr": 0.2},
        {"step": 180, "epoch": 1.8, "loss": 1.0, "lr": 0.3},
        {"step": 200, "epoch": 2.0, "loss": 2.0, "lr": 0.4, "time": 7.0},
        {"restart": True, "step": 200},
    ]
    assert list(epoch_means(rows)) == [(1, {"loss": 2.0, "lr": 0.2}), (2, {"loss": 1.2, "lr": 0.4, "time": 7.0})]
    assert [epoch for epoch, _ in epoch_means(rows[2:])] == []  # began before what is known
    assert list(epoch_means([{**rows[0], "loss": None}])) == []


def test_recipes_that_differ_in_how_they_sample_alone_share_a_training_and_are_two_runs(another: Callable[..., Fake]) -> None:
    fake = another({", digits/E, digits/G": "", ", steps: 18": ""}, "sweep: {sample.steps: [9, 18]}\n")
    one, other = tracked(fake.report(), "run-1", {})
    assert one.tags["edm2.trajectory"] == other.tags["edm2.trajectory"]
    assert one.identity != other.identity
    assert (one.parameters["sample.steps"], other.parameters["sample.steps"]) == ("9", "18")
    assert values(one, "loss") == values(other, "loss") != {}
    assert values(one, "fd_digits").keys() == values(other, "fd_digits").keys() == {20, 40, 60}
