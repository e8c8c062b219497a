"""A whole experiment driven from here: every task a job, trainings of two pods; its results are a single machine's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.launcher.job import prerequisites
from components.launcher.log_store import log_folder, read_record
from edm2core.store import open_store
from edm2core.store.runs import list_runs, load_plan
from tests.cluster.lab import Lab, kubectl

pytestmark = pytest.mark.cluster
EXPERIMENT = "name: whole\nrecipes: [digits/C, digits/E, digits/G]\nepochs: [2, 4]\nsample: {count: 200}\nmetrics: [fd]\n"


@pytest.mark.parametrize("job", ["pytorchjob", "trainjob"])
def test_an_experiment_on_the_cluster_has_the_results_of_one_here(lab: Lab, tmp_path: Path, job: str) -> None:
    """PyTorchJobs in a queue of Kueue, TrainJobs without one."""
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    queue = {"queue": lab.queue()} if job == "pytorchjob" else {}
    profile = lab.profile(store={"uri": f"s3://edm2/whole-{job}"}, patience_s=300, job=job, **queue)
    lab.apply(*prerequisites(profile))
    (tmp_path / "cluster.yaml").write_text(profile.dumps())
    printed = edm2("run", "experiment.yaml", "--cluster", "cluster.yaml", folder=tmp_path)
    edm2("run", "experiment.yaml", "--store", "here", "--processes", "2", folder=tmp_path)
    there, here = results(profile.store.uri), results(str(tmp_path / "here"))
    assert len(there) == 13  # three recipes at two epochs by distance and probe, and the probe of raw pixels
    assert there.keys() == here.keys()
    for row, value in there.items():
        assert value == pytest.approx(here[row], rel=1e-3, abs=1e-3), row
    assert "train to epoch 4" in printed
    store = open_store(profile.store.uri)
    (run,) = list_runs(store)
    for task in load_plan(store, run)[1]:
        assert any('"kind":"commit"' in line.text for line in read_record(store, log_folder(run, task))), task.title
    again = edm2("run", "experiment.yaml", "--cluster", "cluster.yaml", folder=tmp_path)
    assert "✓" not in again
    jobs = json.loads(kubectl("-n", lab.namespace, "get", f"{job}s", "-o", "json"))["items"]
    assert len([made for made in jobs if made["metadata"]["labels"]["edm2/stage"] == "training"]) == 3


def edm2(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def results(uri: str) -> dict[tuple[Any, ...], float]:
    """Every row of the one run's results."""
    store = open_store(uri)
    (run,) = list_runs(store)
    rows = json.loads(store.read(f"runs/{run}/results.json"))["results"]
    return {
        tuple((name, str(row.get(name))) for name in ("recipe", "seed", "epoch", "ema", "draw", "metric")): row["value"] for row in rows
    }
