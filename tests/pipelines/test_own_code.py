"""An experiment with a network, weighting, schedule, optimizer, solver, metric and data format of its user's own, by the real command."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "data" / "my_science"
EXPERIMENT = """
name: all
recipes: [mine.yaml]
epochs: [1]
metrics: [fd_filters, {use: "my_science.metrics:colour_histogram", bins: 8}]
sample: {count: 80, steps: 3, solver: my_science.solvers:euler_ancestral, eta: 0.5}
probe: {epochs: 1, blocks: [block_1]}
diagnostics: true
"""
RECIPE = """
extends: digits/G
data: {format: my_science.data:shapes, count: 400}
network: {use: my_science.nets:TinyDiT, depth: 1, width: 32}
diffusion: {weighting: my_science.loss:soft_min_snr, gamma: 4}
training: {batch: 128, lr_changes: my_science.lr:cosine_restarts, optimizer: my_science.opt:momentum, beta: 0.8}
"""
DRAWN = "import edm2; print(edm2.open().run('RUN').snapshot('own/mine').network.module.__class__.__name__)"


@pytest.mark.slow
def test_everything_can_be_the_users_own(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "my_science", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "pipelines.cli.main", "run", "e.yaml", "--store", "edm2-store"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = tmp_path.glob("edm2-store/runs/*/results.json")
    rows = {row["metric"]: row["value"] for row in json.loads(results.read_text())["results"]}
    assert {"fd_filters", "colour_histogram_bins_8", "probe_accuracy"} <= rows.keys()
    [snapshot] = tmp_path.glob("edm2-store/results/snapshot/*/*/snapshot.json")
    description = json.loads(snapshot.read_text())
    assert description["network"]["own"]["depth"] == 1
    digest = description["code"]["my_science"].partition(":")[2]
    assert (tmp_path / "edm2-store" / "sources" / f"{digest}.tar").is_file()
    shutil.rmtree(tmp_path / "my_science")  # the store has it
    program = DRAWN.replace("RUN", results.parent.name)
    loaded = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.stdout.strip() == "TinyDiT", loaded.stderr
