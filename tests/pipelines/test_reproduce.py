"""From a number back to the command that computes it, and a store that says what has changed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import Plan
from edm2core.store.local import LocalStore
from edm2core.store.runs import Run, load_plan, open_run
from pipelines.cli.reproduce import write_experiment
from pipelines.inputs.user_files import planned, put_code

TINY = """
name: tiny
recipes: [digits/G]
epochs: [1, 2]
metrics: [fd]
sample: {count: 80, steps: 3}
probe: false
overrides: {network.multipliers: [1], network.attention_resolutions: [], training.batch: 256}
"""


def edm2(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    ran = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240)
    return ran.returncode, ran.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "e.yaml").write_text(TINY)
    code, printed = edm2(folder, "run", "e.yaml", "--store", "store")
    assert code == 0, printed
    return folder


def results(folder: Path, store: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(next(folder.glob(f"{store}/runs/*/results.json")).read_text())["results"]
    return found


@pytest.mark.slow
def test_the_printed_commands_compute_the_same_number_and_no_other(made: Path) -> None:
    row = next(row for row in results(made, "store") if row["epoch"] == 1)
    code, printed = edm2(made, "reproduce", f"store/results/{row['result']}")
    assert code == 0, printed
    assert str(row["value"]) in printed
    for line in printed.splitlines():
        _, mine, arguments = line.partition("edm2 ")
        if mine and not line.startswith("#"):
            command = f"{sys.executable} -m pipelines.cli.main {arguments}"
            subprocess.run(command, shell=True, cwd=made, check=True, stderr=subprocess.STDOUT, timeout=240)
    assert results(made, "again") == [row]


@pytest.mark.slow
def test_a_result_that_is_not_there_is_bad_input(made: Path) -> None:
    assert edm2(made, "reproduce", "store/results/metrics/0123")[0] == 2
    code, printed = edm2(made, "run", "e.yaml", "--store", "store", "--only", "metrics/0123")
    assert code == 2
    assert "has no result metrics/0123" in printed


@pytest.mark.slow
def test_verify_names_what_has_changed(made: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", f"{made}/store", str(tmp_path)], check=True)
    assert edm2(tmp_path, "verify", "store")[0] == 0
    reference = next(tmp_path.glob("store/results/reference/*/manifest.json"))
    values = json.loads(reference.read_text())
    os.remove(reference)
    reference.write_bytes(Manifest.loads(json.dumps({**values, "title": "another", "provenance": {}}).encode()).dumps())
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 0
    assert f"was made from an earlier reference (reference/{reference.parent.name}), which has changed since" in printed
    os.remove(reference)
    reference.write_text("{}")
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 1
    assert f"(reference/{reference.parent.name}): manifest.json: This is not a manifest" in printed
    shutil.rmtree(tmp_path / "store")


def test_verify_names_a_source_that_has_changed(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for number in range(20):
        folder = tmp_path / "images" / "train" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + number).save(folder / f"{number}.png")
    (tmp_path / "mine.yaml").write_text(
        "extends: digits/G\nname: mine/G\ndata: {format: images, source: images, resolution: 8}\nnetwork: {image_channels: 3}\n"
    )
    (tmp_path / "e.yaml").write_text("name: mine\nrecipes: [mine.yaml]\nepochs: [1]\nmetrics: []\n")
    only = edm2(tmp_path, "plan", "e.yaml", "--json")[1].splitlines()[0]
    task = json.loads(only)
    code, printed = edm2(tmp_path, "run", "e.yaml", "--store", "store", "--only", f"{task['stage']}/{task['key']}")
    assert code == 0, printed
    assert edm2(tmp_path, "verify", "store")[0] == 0
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "train" / "1" / "1.png")
    code, printed = edm2(tmp_path, "verify", "store")
    assert code == 1
    assert f"{tmp_path / 'images'} is sha256:" in printed


OWN_EXPERIMENT = """
name: kim
recipes: [lab/kim.yaml, digits/G]
epochs: [1]
metrics: [kim_metrics:brightness]
sample: {count: 40, solver: kim_solvers:churned, churn: 0.4, steps: 3}
code: ideas
probe: false
overrides: {training.batch: 512}
"""
OWN_RECIPE = """
extends: digits/G
diffusion: {weighting: kim_loss:flat, height: 2.0}
network: {multipliers: [1], attention_resolutions: []}
"""
OWN_CODE = {
    "kim_metrics.py": "def brightness(samples, real):\n    return abs(float(samples.mean()) - float(real.mean()))\n",
    "kim_solvers.py": "def churned(denoise, x, sigmas, noise, *, churn: float = 0.1):\n    return denoise(x, sigmas[0])\n",
    "kim_loss.py": "def flat(sigma, sigma_data, *, height: float = 1.0):\n    return sigma * 0 + height\n",
}


def write_own(folder: Path) -> Path:
    for name, text in {"kim.yaml": OWN_EXPERIMENT, "lab/kim.yaml": OWN_RECIPE}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "ideas").mkdir()
    for name, text in OWN_CODE.items():
        (folder / "ideas" / name).write_text(text)
    return folder / "kim.yaml"


@pytest.fixture
def of_own_code(tmp_path: Path) -> tuple[LocalStore, Run, Plan]:
    """A recorded run of own code, whose code is edited afterwards."""
    experiment = load_experiment(write_own(tmp_path / "then"))
    tasks, store = planned(experiment), LocalStore(tmp_path / "store")
    run = open_run(store, experiment, tasks, {})
    put_code(experiment, tasks, store)
    for file in (tmp_path / "then" / "ideas").iterdir():
        file.write_text(file.read_text() + "\n# edited\n")
    return store, run, tasks


def test_an_experiment_of_edited_own_code_is_written_out_as_it_was(of_own_code: tuple[LocalStore, Run, Plan], tmp_path: Path) -> None:
    store, run, tasks = of_own_code
    text = store.read(f"{run.folder}/experiment.yaml").decode()
    written = write_experiment("kim", text, load_plan(store, run.id)[1], store, tmp_path / "now")
    assert {path.name for path in written} == {"kim.yaml", "recipe-kim.yaml", *OWN_CODE}
    assert (tmp_path / "now" / "kim_loss.py").read_text() == OWN_CODE["kim_loss.py"]
    assert [task.ref for task in planned(load_experiment(tmp_path / "now" / "kim.yaml"))] == [task.ref for task in tasks]
    with pytest.raises(InputError, match=r"There is a .*now already"):
        write_experiment("kim", text, tasks, store, tmp_path / "now")


def test_the_command_of_a_result_of_own_code_writes_that_code_out(of_own_code: tuple[LocalStore, Run, Plan], tmp_path: Path) -> None:
    store, run, tasks = of_own_code
    task = next(task for task in tasks if task.stage == "metrics" and task.code)
    made = Manifest(task.stage, 1, task.key, task.title, dict(task.settings), {}, {}, "1", {})
    store.write(task.ref.manifest, made.dumps())
    code, printed = edm2(tmp_path, "reproduce", f"store/{task.ref.folder}")
    assert code == 0, printed
    for package, content in ((name, content) for each in tasks for name, content in each.code.items()):
        assert f"'{package}' as it was, from {store.uri}/sources/{content.partition(':')[2]}.tar" in printed
    assert f"store/{task.ref.folder} --to {run.id}" in printed
    assert f"edm2 run {run.id}/kim.yaml --store again --only {task.ref}" in printed
    code, printed = edm2(tmp_path, "reproduce", f"store/{task.ref.folder}", "--to", run.id)
    assert code == 0, printed
    code, printed = edm2(tmp_path, "plan", f"{run.id}/kim.yaml")
    assert code == 0, printed
    assert task.key[:8] in printed


def test_a_result_that_edited_own_code_no_longer_plans_is_told_so(tmp_path: Path) -> None:
    write_own(tmp_path)
    code, printed = edm2(tmp_path, "run", "kim.yaml", "--store", "store", "--only", "metrics/0123")
    assert code == 2
    assert "'kim_metrics' (sha256:" in printed
    assert "edm2 reproduce RESULT --to FOLDER" in printed
