"""What own code costs: how often an own solver evaluates the network, counted before anything runs."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from edm2core.config.settings import SampleSettings
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.network_cost import network_cost
from edm2core.plan.tasks import Task
from pipelines.cli.plan import command
from pipelines.estimate import Levels, estimates, solver_alone
from pipelines.inputs.user_files import planned
from pipelines.own_costs import solver_levels

SOLVER = """
from itertools import pairwise
def twice(denoise, x, sigmas, noise, *, more: int = 0):
    for sigma, following in pairwise(sigmas):
        for _ in range(2 + more):
            x = denoise(x, sigma)
    return x
def broken(denoise, x, sigmas, noise):
    raise RuntimeError("not today")
"""
EXPERIMENT = "name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: [fd]\nprobe: false\nsample: {count: 100, steps: 6, "


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for an experiment, beside its own solver. What is counted is cached here too."""
    monkeypatch.setenv("EDM2_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my_solvers.py").write_text(SOLVER)
    return tmp_path / "e.yaml"


def test_an_own_solvers_evaluations_are_counted_in_a_process_of_its_own(write: Path) -> None:
    write.write_text(EXPERIMENT + "solver: 'my_solvers:twice', more: 1}\n")
    experiment = load_experiment(write)
    levels = solver_levels(experiment)
    (sample,) = [task for task in planned(experiment) if task.stage == "sample"]
    (recipe,) = experiment.recipes
    cost = estimates(planned(experiment), lambda _: None, levels=levels)[sample.ref]
    assert cost.flops == network_cost(recipe.unet, recipe.diffusion).flops * 18 * 100
    assert len(list((write.parent / "cache").rglob("*.json"))) == 1
    assert solver_levels(experiment) == levels


def test_the_plan_says_which_solver_could_not_be_counted(write: Path) -> None:
    write.write_text(EXPERIMENT + "solver: 'my_solvers:broken'}\n")
    done = CliRunner().invoke(command, [str(write), "--store", str(write.parent / "store")])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("sample")]
    assert line.split()[3] == "?"
    assert "?: evaluations of my_solvers:broken not known, since it could not be counted here." in done.output


def test_guided_evaluations_of_an_own_solver_are_those_within_the_interval(write: Path) -> None:
    guided = "solver: 'my_solvers:twice', guidance: {weight: 2, interval: [0.1, 10]}}\n"
    write.write_text(EXPERIMENT + guided + "overrides: {network.classes: 10, training.label_dropout: 0.1}\n")
    experiment = load_experiment(write)
    (recipe,), tasks = experiment.recipes, planned(experiment)
    counted: dict[SampleSettings, Levels] = {solver_alone(recipe.sample): (80.0, 80.0, 5.0, 5.0, 0.002)}
    (sample,) = [task for task in tasks if task.stage == "sample"]
    cost = estimates(tasks, lambda _: None, levels=counted)[sample.ref]
    assert cost.flops == network_cost(recipe.unet, recipe.diffusion).flops * (5 + 2) * 100


def test_samples_that_are_there_say_how_many_evaluations_they_took(write: Path) -> None:
    write.write_text(EXPERIMENT + "solver: 'my_solvers:twice'}\n")
    experiment = load_experiment(write)
    (recipe,), tasks = experiment.recipes, planned(experiment)
    (sample,) = [task for task in tasks if task.stage == "sample"]
    drawn = recorded(sample, 12)
    cost = estimates(tasks, lambda ref: drawn if ref == sample.ref else None)[sample.ref]
    assert cost.flops == network_cost(recipe.unet, recipe.diffusion).flops * 12 * 100


def recorded(task: Task, nfe: int) -> Manifest:
    """What the store has of drawn samples."""
    return Manifest(task.stage, task.version, task.key, task.title, task.settings, {}, {}, "attempt", {}, {"nfe": nfe}, {})
