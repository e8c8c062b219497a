"""An experiment that a real MLflow server follows."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.kubeflow import Artifact
from components.report.component import component as finish

TINY = """
name: {name}
recipes: [digits/G]
epochs: {epochs}
metrics: [fd]
sample: {{count: 80, steps: 3}}
probe: false
overrides: {{network.multipliers: [1], network.attention_resolutions: [], training.batch: 256}}
"""


def run(folder: Path, uri: str, name: str, epochs: str, code: int = 0) -> str:
    (folder / "e.yaml").write_text(TINY.format(name=name, epochs=epochs))
    command = [sys.executable, "-m", "pipelines.cli.main", "run", "e.yaml", "--store", "store"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env=environment)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def runs(uri: str, experiment: str) -> list[Run]:
    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def steps(uri: str, run: Run) -> dict[str, list[int]]:
    return {name: [point.step for point in MlflowClient(uri).get_metric_history(run.info.run_id, name)] for name in run.data.metrics}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trainings_are_followed_gone_on_with_and_caught_up_on(tmp_path: Path, mlflow_uri: str) -> None:
    printed = run(tmp_path, mlflow_uri, "followed", "[1]")
    assert f"logging to MLflow at {mlflow_uri}, experiment followed" in printed
    found = runs(mlflow_uri, "followed")
    assert [(each.info.run_name, each.info.status) for each in found] == [("digits/G · seed 0", "FINISHED")]
    assert set(map(tuple, steps(mlflow_uri, found[0]).values())) == {(1,)}

    with socket.socket() as free:  # the server is down
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    printed = run(tmp_path, nowhere, "followed", "[1, 2]")
    assert printed.count("was not told everything: it does not answer. What is missing is logged when the same command runs again.") == 1
    assert "report: " in printed

    run(tmp_path, mlflow_uri, "followed", "[1, 2]")
    again = runs(mlflow_uri, "followed")
    assert [each.info.run_id for each in again] == [each.info.run_id for each in found]
    history = steps(mlflow_uri, again[0])
    assert history.keys() == {"fd_digits", "fd_digits/standard error", "loss", "lr"}
    assert all(each == [1, 2] for each in history.values())

    (plan,) = [path for path in tmp_path.glob("store/runs/*/plan.json") if "[1, 2]" in path.with_name("experiment.yaml").read_text()]
    with pytest.MonkeyPatch.context() as environment:  # as Kubeflow's last task does
        environment.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
        outputs = [Artifact(name, str(tmp_path / name)) for name in ("page", "latest")]
        finish(plan.parent.name, str(tmp_path / "store"), "", "", *outputs)
    assert steps(mlflow_uri, runs(mlflow_uri, "followed")[0]) == history


def test_a_wrong_address_is_refused_before_anything_runs(tmp_path: Path) -> None:
    printed = run(tmp_path, "htp://nowhere", "refused", "[1]", code=2)
    assert re.search("MLflow cannot use this address", printed)
    assert not (tmp_path / "store").exists()
