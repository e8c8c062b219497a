"""The rows: the same numbers everywhere, in the same order, whoever computed them."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edm2core.report import collect, write
from edm2core.report.collect import RunInfo
from edm2core.report.results import label, rows
from edm2core.report.write import as_csv, as_json

if TYPE_CHECKING:
    from conftest import Fake


def _results(fake: Fake) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(as_json(fake.report()))["results"]
    return found


def test_a_row_carries_what_its_value_means(demo: Fake) -> None:
    (row,) = [r for r in _results(demo) if r["recipe"] == "digits/C" and r["epoch"] == 20 and r["metric"] == "fd_digits"]
    assert row.pop("value") > 0
    assert row.pop("result") == str(demo.find("metrics", recipe="digits/C", epoch=20).ref)
    assert row == {
        "dataset": "digits",
        "recipe": "digits/C",
        "seed": 0,
        "epoch": 20,
        "ema": "fixed",
        "draw": 0,
        "n": 2000,
        "protocol": "18 steps, eta 0, 2000 samples vs 1437 training images, digits features, by torch-fidelity",
        "metric": "fd_digits",
        "error": 0.25,
        "deviation": None,
    }


def test_the_probes_protocol_is_stated(demo: Fake) -> None:
    protocols = {row["protocol"] for row in _results(demo) if row["metric"] == "probe_accuracy"}
    assert protocols == {"linear probe t=4 out_3, 15 epochs, batch 512, lr 0.004, no flip, EMA fixed"}


def test_the_raw_pixel_classifier_belongs_to_no_recipe(demo: Fake) -> None:
    (row,) = [row for row in _results(demo) if row["metric"] == "pixel_accuracy"]
    assert (row["recipe"], row["seed"], row["epoch"], row["ema"], row["value"]) == (None, None, None, None, 95.83)


def test_rows_do_not_depend_on_the_order_of_tasks(demo: Fake) -> None:
    shuffled = list(demo.tasks)
    random.Random(1).shuffle(shuffled)
    again = collect(demo.name, shuffled, demo.store, RunInfo(started="2025-01-01T00:00:00Z"))
    assert list(rows(again)) == list(rows(demo.report()))


def test_csv_and_json_hold_the_same_rows(demo: Fake) -> None:
    text = as_csv(demo.report())["results.csv"]
    read = list(csv.DictReader(io.StringIO(text)))
    written = [{k: "" if v is None else str(v) for k, v in row.items()} for row in _results(demo)]
    assert read == written


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", None])
def test_a_value_that_is_no_number_is_null(fake: Fake, value: Any) -> None:
    fake.metadata = {"metrics": {"values": {"fd_digits": value}}}
    fake.make()
    assert {row["value"] for row in _results(fake) if row["metric"] == "fd_digits"} == {None}
    text = as_json(fake.report()) + as_csv(fake.report())["results.csv"]
    assert "NaN" not in text
    assert "nan" not in text
    assert "Infinity" not in text


def test_the_run_says_who_made_what(demo: Fake) -> None:
    run = json.loads(as_json(demo.report()))["run"]
    assert run["hosts"] == ["workstation"]
    assert run["code_versions"] == ["0.1.0+4f2a9c1d77e0"]
    assert len(run["tasks"]) == len(demo.tasks)
    assert all(task["attempt"] and task["state"] == "done" for task in run["tasks"])


def test_a_settings_change_shows_in_the_protocol(another: Callable[..., Fake]) -> None:
    changed = another({"steps: 18": "steps: 18, eta: 0.5, sigma_max: 40.0, clip: false", "batch: 512": "batch: 512, flip: false"})
    protocols = {row["metric"]: row["protocol"] for row in _results(changed)}
    assert protocols["fd_digits"] == (
        "18 steps, eta 0.5, 2000 samples vs 1437 training images, digits features, by torch-fidelity, clip False, sigma_max 40"
    )
    assert protocols["probe_accuracy"] == "linear probe t=4 out_3, 15 epochs, batch 512, lr 0.004, no flip, EMA fixed"


def test_guidance_shows_in_the_protocol_with_what_it_costs(another: Callable[..., Fake]) -> None:
    conditional = "network.classes: 10, training.label_dropout: 0.1"
    guided = another(
        {
            "steps: 18": "steps: 18, guidance: {weight: 1.5, interval: [0.2, 5]}",
            "{training.epochs: 60}": f"{{training.epochs: 60, {conditional}}}",
        }
    )
    protocols = {row["metric"]: row["protocol"] for row in _results(guided)}
    assert protocols["fd_digits"] == (
        "18 steps, eta 0, 2000 samples vs 1437 training images, digits features, by torch-fidelity, "
        "network evaluations of an image, guided ones twice: 45, guidance 1.5, classifier-free at σ from 0.2 to 5"
    )


def test_a_guide_shows_in_the_protocol_as_it_differs_from_the_guided_network(another: Callable[..., Fake]) -> None:
    guided = another({"steps: 18": "steps: 18, guidance: {weight: 2, guide: {epoch: 10, ema: 0.1}}", "probe: {": "probe: false #{"})
    protocols = {row["protocol"].partition("torch-fidelity, ")[2] for row in _results(guided)}
    assert protocols == {"network evaluations of an image, guided ones twice: 70, guidance 2, by epoch 10, EMA 0.100"}


def test_a_distance_in_other_features_is_never_called_fid() -> None:
    assert label("fid") == "FID"
    assert "FID" not in label("fd_digits")


def test_files_are_written_and_replaced(demo: Fake, tmp_path: Path) -> None:
    for _ in range(2):
        write(demo.report(), tmp_path / "out")
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        tables = ["differences.csv", "frontiers.csv", "rechecks.csv", "results.csv", "seeds.csv"]
        assert names == sorted(["overview.json", "report.html", "results.json", *tables])
