"""The experiment files that come with the project."""

import re
from pathlib import Path

import pytest

from components.launcher.profile import load_profile
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.store.runs import run_id
from pipelines.estimate import GPUS, estimates
from pipelines.inputs.user_files import resolve
from pipelines.kubeflow.compiler import compile

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


LARGE = ("digits-full", "cifar10", "cifar100")  # hundreds of tasks


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem, marks=[pytest.mark.slow] if file.stem in LARGE else []) for file in FILES]
)
def test_an_experiment_can_be_planned_and_compiled_without_a_network(file: Path) -> None:
    experiment = load_experiment(file)
    tasks = plan(experiment, resolve(experiment))
    assert tasks
    profile = load_profile("gpu")
    packages = compile(tasks, experiment, run_id(experiment, tasks), profile, profile.store.uri)
    assert packages
    assert all(package.size.fits for package in packages)
    assert {task.ref for package in packages for task in package.tasks} == {task.ref for task in tasks}


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.stem not in ("demo", "digits-full", "frontier-digits", "guidance-digits")],
    ids=lambda file: file.stem,
)
def test_its_first_lines_say_what_it_costs(file: Path) -> None:
    experiment = load_experiment(file)
    tasks = plan(experiment, resolve(experiment))
    costs = estimates(tasks, lambda _: None)
    stages = ("snapshot", "sample", "probe")
    hours = [sum(costs[task.ref].seconds(GPUS["h100"]) or 0.0 for task in tasks if task.stage == stage) / 3600 for stage in stages]
    said = re.search(
        r"by `edm2 plan`: ([\d.]+) GPU hours: ([\d.]+) of training, ([\d.]+) of sampling(?:, ([\d.]+) of probes)?", file.read_text()
    )
    assert said is not None
    total = sum(costs[task.ref].seconds(GPUS["h100"]) or 0.0 for task in tasks) / 3600
    assert [float(number or 0) for number in said.groups()] == pytest.approx([total, *hours], abs=0.051)
