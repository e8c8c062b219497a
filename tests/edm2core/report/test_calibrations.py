"""What `edm2 calibrate` found, in the reports of its store."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edm2core.config.settings import CalibrationSettings
from edm2core.metrics.gaussian import Statistics
from edm2core.metrics.statistics import frechet_distance
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task, calibration_task
from edm2core.report.calibrations import calibration, most_moved
from edm2core.report.html import render
from edm2core.report.write import as_json
from edm2core.store.results import commit

if TYPE_CHECKING:
    from conftest import Fake

TRAINING = {"against": "test"}
MODEL = {"against": "images", "name": "EDM, 1.97 in its README", "expected": 1.97, "tolerance": 0.05}
MEASURED = {"label": "FID", "n": 50000, "distance": 1.9912, "error": 0.012}


def made(settings: Mapping[str, Any], found: Mapping[str, Any], extractor: Ref) -> Manifest:
    inputs = {"data": Ref("prepare", "0"), "extractor": extractor, "reference": Ref("reference", "0")}
    task: Task = calibration_task(CalibrationSettings.model_validate(settings), inputs, "cifar10")
    names = {name: str(ref) for name, ref in task.inputs.items()}
    return Manifest(task.stage, task.version, task.key, task.title, task.settings, names, {}, "a", {}, dict(found), {})


@pytest.mark.parametrize(("distance", "agrees", "words"), [(1.9912, True, "within 0.05"), (2.05, False, "beyond 0.05")])
def test_a_models_distance_is_held_to_the_published_one(distance: float, agrees: bool, words: str) -> None:
    found = calibration(made(MODEL, {**MEASURED, "distance": distance}, Ref("extractor", "0")))
    assert found.agrees is agrees
    assert re.search(rf"FID {distance:.4g} ± 0.012 of 50000 images; published 1.97, {words} of it", found.found)


def test_test_images_have_nothing_to_agree_with() -> None:
    found = calibration(made(TRAINING, MEASURED, Ref("extractor", "0")))
    assert (found.title, found.agrees) == ("cifar10 · calibration by the test images", None)


def test_an_error_of_the_reference_moves_no_distance_by_more_than_is_said() -> None:
    generator = np.random.default_rng(0)

    def drawn(shift: float) -> Statistics:
        root = np.eye(6) + 0.2 * generator.standard_normal((6, 6))
        return Statistics(shift + 0.1 * generator.standard_normal(6), root @ root.T, 100)

    for _ in range(50):
        samples, ours = drawn(0.5), drawn(0.0)
        theirs = replace(ours, mean=ours.mean + 0.01 * generator.standard_normal(6), covariance=ours.covariance * 1.01)
        distance, between = frechet_distance(samples, ours), frechet_distance(ours, theirs)
        assert abs(frechet_distance(samples, theirs) - distance) <= most_moved(distance, between) * (1 + 1e-6)


def test_every_report_of_the_store_on_that_extractor_shows_it(demo: Fake) -> None:
    extractor = demo.find("extractor").ref
    assert "have not been compared with others'" in " ".join(render(demo.report()).replace("&#39;", "'").split())
    ours = commit(demo.store, made(MODEL, {**MEASURED, "distance": 2.5}, extractor))
    commit(demo.store, made(TRAINING, MEASURED, Ref("extractor", "another")))
    try:
        report = demo.report()
        assert report.calibrations == (ours,)
        page = render(report)
        assert "published 1.97, beyond 0.05 of it <strong>(does not agree)</strong>" in page
        assert "calibration by the test images" not in page
        (fact,) = json.loads(as_json(report))["run"]["calibrations"]
        assert fact.items() >= {"expected": 1.97, "distance": 2.5, "result": str(ours.ref)}.items()
    finally:
        for entry in demo.store.list("results/calibration/"):
            demo.store.delete(entry.path)
