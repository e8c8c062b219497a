"""Values that the user's own code drew or measured: what is said of them, and what they stand beside."""

import csv
import html
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edm2core.report.compare import Comparison, Side, compare
from edm2core.report.frontier import Frontier, frontiers
from edm2core.report.frontier_words import answers_of
from edm2core.report.guidance import guidance_sweeps
from edm2core.report.html import render
from edm2core.report.results import rows
from edm2core.report.tracked import tracked
from edm2core.report.write import as_csv
from tests.edm2core.report.conftest import Fake

SOLVER = """
def my_heun(denoise, x, sigmas, noise):
    return x

def churned(denoise, x, sigmas, noise, *, churn: float = 0.4, s_noise: float = 1.003):
    return x

def noisy(denoise, x, sigmas, noise, *, eta: float = 0.5):
    return x
"""
METRIC = "def brightness(samples, real):\n    return 1.0\n"
NETWORK = "class Net:\n    def __init__(self, image_channels, resolution):\n        pass\n"
EXPERIMENT = """\
name: own
recipes: [digits/C]
epochs: [1]
metrics: [fd, my_metrics:brightness]
probe: false
"""
CONDITIONAL = "overrides: {network.classes: 10, training.label_dropout: 0.1}\n"


def own(folder: Path, text: str, nfe: int | None = 15, **files: str) -> Fake:
    """An experiment with its own code beside it, all of it done. Samples record `nfe` evaluations."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, code in {"my_solvers": SOLVER, "my_metrics": METRIC, "my_nets": NETWORK, **files}.items():
        (folder / f"{name}.py").write_text(code)
    (folder / "mine.yaml").write_text("extends: digits/C\nnetwork: {use: 'my_nets:Net'}\n")
    fake = Fake(folder, text)
    for task in fake.tasks:
        recorded: dict[str, Any] = {}
        if task.stage == "sample" and nfe is not None:
            recorded = {"nfe": nfe}
        if task.stage == "metrics" and task.code:
            recorded = {"values": {"brightness": 1.25}, "standard_errors": {}, "n": 128}
        fake.commit(task, recorded)
    return fake


def protocols(fake: Fake) -> dict[str, str]:
    return {row.metric: row.protocol for row in rows(fake.report())}


def code_of(fake: Fake, package: str) -> str:
    """The first digits of a package's digest, as a person is shown them."""
    return next(task.code[package] for task in fake.tasks if package in task.code).removeprefix("sha256:")[:12]


def one(fake: Fake) -> Frontier:
    return next(frontier for frontier in frontiers(fake.report()) if frontier.metric == "fd_digits")


@pytest.mark.parametrize("name", ["my_heun", "churned"])
def test_an_own_solver_is_compared_with_built_in_ones_by_its_counted_evaluations(tmp_path: Path, name: str) -> None:
    sweep = f"sample: {{count: 128, steps: 8}}\nsweep: {{sample.solver: [heun, 'my_solvers:{name}']}}\n"
    fake = own(tmp_path, EXPERIMENT + sweep)
    frontier = one(fake)
    assert [point.name for point in frontier.points] == ["heun 15", f"my_solvers:{name} 15"]
    assert "my_solvers" not in frontier.protocol
    assert "churn" not in frontier.protocol
    (answer, *_) = answers_of(fake.report())
    assert answer.sentence.startswith("All samplers take 15 evaluations")
    lines = csv.DictReader(io.StringIO(as_csv(fake.report())["frontiers.csv"]))
    assert {line["evaluations"] for line in lines} == {"15"}


@pytest.mark.parametrize(("solver", "setting"), [("noisy", "eta"), ("churned", "churn")])
def test_an_own_solvers_swept_setting_is_called_swept_once(tmp_path: Path, solver: str, setting: str) -> None:
    text = f"sample: {{count: 128, solver: 'my_solvers:{solver}'}}\nsweep: {{sample.steps: [6, 8], sample.{setting}: [0.1, 0.5]}}\n"
    frontier = one(own(tmp_path, EXPERIMENT + text))
    assert len(frontier.points) == 4
    assert f"{setting} swept" in frontier.protocol
    assert frontier.protocol.count(f"{setting} ") == 1


def test_samples_by_an_own_solver_whose_evaluations_nobody_counted_are_on_no_frontier(tmp_path: Path) -> None:
    sweep = "sample: {count: 128, steps: 8}\nsweep: {sample.solver: [heun, euler, 'my_solvers:my_heun']}\n"
    assert [point.name for point in one(own(tmp_path, EXPERIMENT + sweep, nfe=None)).points] == ["euler 8", "heun 15"]


def test_guided_samples_say_the_counted_evaluations(tmp_path: Path) -> None:
    text = "sample: {count: 128, solver: 'my_solvers:my_heun'}\nsweep: {sample.guidance: [{weight: 1.5}, {weight: 2}]}\n"
    fake = own(tmp_path, EXPERIMENT + CONDITIONAL + text, nfe=44)
    assert {point.evaluations for sweep in guidance_sweeps(fake.report()) for point in sweep.points} == {44}
    assert "guided ones twice: 44" in protocols(fake)["fd_digits"]


def test_the_protocol_says_of_own_code_what_decides_the_value_and_nothing_that_it_lacks(tmp_path: Path) -> None:
    fake = own(tmp_path, EXPERIMENT + "sample: {count: 128, steps: 6, solver: 'my_solvers:churned'}\n")
    samples = "6 steps, 128 samples vs"
    solver = f"solver my_solvers:churned, solver's code {code_of(fake, 'my_solvers')}, churn 0.4, s_noise 1.003"
    metric = f"metric's code my_metrics {code_of(fake, 'my_metrics')}"
    assert protocols(fake) == {
        "fd_digits": f"{samples} 1437 training images, digits features, by torch-fidelity, {solver}",
        "brightness": f"{samples} the training images, {metric}, {solver}",
    }


def test_eta_is_said_of_a_solver_that_has_it(tmp_path: Path) -> None:
    fake = own(tmp_path / "own", EXPERIMENT + "sample: {count: 128, steps: 6, solver: 'my_solvers:noisy'}\n")
    assert protocols(fake)["brightness"].endswith(", eta 0.5")
    assert protocols(fake)["brightness"].count("eta") == 1
    assert "eta" not in protocols(own(tmp_path / "euler", EXPERIMENT + "sample: {solver: euler}\n"))["brightness"]


def between(tmp_path: Path, text: str, **changed: str) -> Comparison:
    """The experiment before and after a change of its code."""
    before, after = own(tmp_path / "a", text), own(tmp_path / "b", text, **changed)
    return compare([Side(mark, mark, fake.report()) for mark, fake in (("A", before), ("B", after))])


@pytest.mark.parametrize(
    ("text", "package", "code", "apart"),
    [
        (EXPERIMENT, "my_metrics", METRIC.replace("1.0", "2.0"), {"brightness"}),
        (
            EXPERIMENT + "sample: {solver: 'my_solvers:my_heun'}\n",
            "my_solvers",
            SOLVER + "\n# another thought\n",
            {"fd_digits", "brightness"},
        ),
        (EXPERIMENT.replace("digits/C", "mine.yaml"), "my_nets", NETWORK + "\n# another thought\n", set()),
    ],
)
def test_a_change_of_own_code_is_a_difference_and_its_values_share_no_column(
    tmp_path: Path, text: str, package: str, code: str, apart: set[str]
) -> None:
    found = between(tmp_path, text, **{package: code})
    (difference,) = found.settings
    assert difference.name == f"own code {package}"
    assert len(set(difference.values.values())) == 2
    columns = [column.metric for table in found.tables for column in table.columns]
    assert {metric for metric in columns if columns.count(metric) == 2} == apart


def test_a_setting_of_own_code_that_differs_is_called_as_a_file_calls_it(tmp_path: Path) -> None:
    sample = "sample: {solver: 'my_solvers:churned', churn: CHURN}\n"
    one, other = (own(tmp_path / churn, EXPERIMENT + sample.replace("CHURN", churn)) for churn in ("0.1", "0.2"))
    (difference,) = compare([Side(mark, mark, fake.report()) for mark, fake in (("A", one), ("B", other))]).settings
    assert (difference.name, difference.values) == ("sample.churn", {"A": "0.1", "B": "0.2"})


def test_unchanged_own_code_is_no_difference(tmp_path: Path) -> None:
    assert between(tmp_path, EXPERIMENT + "sample: {solver: 'my_solvers:my_heun'}\n").settings == []


def test_the_full_recipe_shows_each_own_setting_once(tmp_path: Path) -> None:
    page = render(own(tmp_path, EXPERIMENT + "sample: {count: 128, solver: 'my_solvers:noisy'}\n").report())
    (recipe,) = [text for text in re.findall(r"<pre[^>]*><code>(.*?)</code>", page, re.DOTALL) if "dropout" in text]
    sample = yaml.safe_load(html.unescape(recipe))["sample"]
    assert (sample["eta"], sample["solver"]) == (0.5, "my_solvers:noisy")
    assert not {"own", "s_min", "order"} & sample.keys()
    assert recipe.count(" eta:") == 1


def test_a_tracker_names_own_settings_as_a_file_does(tmp_path: Path) -> None:
    sampled = EXPERIMENT + "sample: {solver: 'my_solvers:churned', churn: 0.5}\n"
    (training,) = tracked(own(tmp_path, sampled).report(), "run-1", {})
    assert training.parameters["sample.churn"] == "0.5"
    assert not any(name.endswith(".own") for name in training.parameters)
