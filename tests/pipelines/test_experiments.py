"""The experiment files that come with the project."""

from pathlib import Path

import pytest

from components.launcher.profile import load_profile
from edm2core.config import load_experiment
from edm2core.plan import plan
from edm2core.store.runs import run_id
from pipelines.kfp import MOST_TASKS, compile
from pipelines.sources import resolve

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_can_be_planned_and_compiled_without_a_network(file: Path, tmp_path: Path) -> None:
    experiment = load_experiment(file)
    tasks = plan(experiment, resolve(experiment))
    assert 0 < len(tasks) <= MOST_TASKS
    profile = load_profile("gpu")
    compile(tasks, experiment, run_id(experiment, tasks), profile, profile.store.uri, tmp_path / "package.yaml")
    assert (tmp_path / "package.yaml").stat().st_size < 2**20  # of which Argo keeps two copies where etcd takes 1.5 MiB
