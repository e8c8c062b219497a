"""Packages that really run: through kfp.local, and a component's body as Kubeflow's launcher starts it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import kfp.local
import pytest
import yaml
from kfp.components import load_component_from_file

from components.record.plan_parameter import Packed, grouped, named, put
from edm2core.config import load_recipe
from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store import open_store
from edm2core.store.results import load, verify
from edm2core.store.runs import load_plan, open_run, run_id
from pipelines.inputs.user_files import resolve
from pipelines.kubeflow.compiler import compile
from tests.fx import write_checkpoint
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {
    "name": "tiny",
    "recipes": ["digits/G"],
    "seeds": [0],
    "epochs": [1, 2],
    "sample": {"count": 128, "steps": 2},
    "metrics": [],
    "probe": {"epochs": 1},
    "overrides": {"network.channels": 16},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def small(folder: Path, **settings: Any) -> tuple[Experiment, list[Task]]:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **settings}))
    read = load_experiment(file)
    return read, plan(read, resolve(read))


def run_package(folder: Path, read: Experiment, tasks: list[Task]) -> dict[Ref, Manifest | None]:
    """Run the tasks' package through kfp.local; every task's manifest in the store at `folder`/store."""
    (package,) = compile(tasks, read, run_id(read, tasks), None, str(folder / "store"))
    package.write(folder / "package.yaml")
    kfp.local.init(kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "kfp"), raise_on_error=True)
    load_component_from_file(str(folder / "package.yaml"))()
    return {task.ref: load(open_store(str(folder / "store")), task.ref) for task in tasks}


def artifacts(folder: Path) -> dict[str, dict[str, Any]]:
    """What the components of a local run published, by <component>/<artifact>: kfp.local keeps only the last task of each."""
    found = {}
    for file in folder.glob("kfp/*/*/executor_output.json"):
        for name, value in json.loads(file.read_text()).get("artifacts", {}).items():
            found[f"{file.parent.name}/{name}"] = value["artifacts"][0]
    return found


@pytest.mark.slow
def test_a_package_leaves_the_plans_results_and_its_report_in_the_store(tmp_path: Path) -> None:
    read, tasks = small(tmp_path)
    manifests = run_package(tmp_path, read, tasks)
    store = open_store(str(tmp_path / "store"))
    assert all(manifest is not None and verify(store, manifest) == [] for manifest in manifests.values())
    run = run_id(read, tasks)
    assert load_plan(store, run) == (read.name, tasks)
    assert store.read(f"runs/{run}/experiment.yaml").decode() == read.text
    results = json.loads(store.read(f"runs/{run}/results.json"))
    assert [row["epoch"] for row in results["results"] if row["metric"] == "probe_accuracy"] == [1, 2]
    assert not list(store.list(f"{trajectory_ref(next(t for t in tasks if t.stage == 'snapshot')).scratch}/wanted/"))

    published = artifacts(tmp_path)
    snapshot = published["snapshot/snapshot"]
    manifest = manifests[next(task.ref for task in tasks if task.stage == "snapshot" and task.subject.epoch == 2)]
    assert manifest is not None
    title, place, *files = Path(snapshot["uri"]).read_text().splitlines()
    assert title == "G · seed 0 · train to epoch 2"
    assert place == f"{store.uri}/{manifest.ref.manifest} (sha256 {hashlib.sha256(manifest.dumps()).hexdigest()})"
    assert len(files) == len(manifest.files)
    where = f"{store.uri}/{manifest.ref.folder}/{manifest.attempt}"
    assert snapshot["metadata"] == {"recipe": "digits/G", "seed": 0, "epoch": 2, "location": where}
    assert set(published["probe-2/accuracy"]["metadata"]) == {"probe_accuracy"}
    assert len(published["probe-2/confusion"]["metadata"]["confusionMatrix"]["rows"]) == 10
    assert list(published["report/latest"]["metadata"]) == ["digits/G · seed 0 · Linear probe, %"]
    assert "<svg" in Path(published["snapshot/curves"]["uri"]).read_text()
    assert "<html" in Path(published["report/page"]["uri"]).read_text()[:1000].lower()
    logs = store.read(f"runs/{run}/logs/{manifest.stage}-{manifest.key}/0.log").decode()
    assert '"commit"' in logs

    shutil.rmtree(tmp_path / "kfp")
    run_package(
        tmp_path, read, tasks
    )  # all is there, so the first task shows the report; kfp.local does the exit task of what is skipped too
    again = artifacts(tmp_path)
    assert set(again) == {"record/overview", "record/counts", "report/page", "report/latest"}
    assert "Linear probe, %" in Path(again["record/overview"]["uri"]).read_text()
    assert again["record/counts"]["metadata"] == published["report/latest"]["metadata"]


@pytest.mark.slow
def test_a_package_with_everything_in_it_finds_what_edm2_run_finds(tmp_path: Path) -> None:
    read, tasks = small(tmp_path, metrics=["fd"], epochs=[1])
    manifests = run_package(tmp_path, read, tasks)
    edm2 = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
    subprocess.run([*edm2, "run", str(tmp_path / "experiment.yaml"), "--store", str(tmp_path / "here")], check=True)
    here = open_store(str(tmp_path / "here"))
    for ref, manifest in manifests.items():
        other = load(here, ref)
        assert manifest is not None
        assert other is not None
        assert other.metadata.get("values") == manifest.metadata.get("values")
        assert other.inputs == manifest.inputs
    published = artifacts(tmp_path)
    assert set(published["metrics/FD"]["metadata"]) == {"fd_digits"}
    assert "data:image/png;base64," in Path(published["sample/pictures"]["uri"]).read_text()


@pytest.mark.slow
def test_a_package_reads_a_checkpoint_and_mixes_an_average(tmp_path: Path) -> None:
    network = {**SMALL["overrides"], "data.standardize": False}
    write_checkpoint(tmp_path / "model_0.pth", load_recipe("digits/G", network), steps=23)
    read, tasks = small(tmp_path, epochs=[3], probe={"epochs": 1, "ema": 0.06}, overrides={**network, "start.checkpoint": "model_0.pth"})
    assert {"start", "ema"} < {task.stage for task in tasks}
    manifests = run_package(tmp_path, read, tasks)
    assert None not in manifests.values()


@pytest.mark.slow
def test_a_compiled_package_runs_code_of_the_users_own(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/data/my_science", tmp_path / "my_science", ignore=shutil.ignore_patterns("__pycache__"))
    own = {"sample": {"count": 80, "steps": 2, "solver": "my_science.solvers:euler_ancestral"}, "probe": False}
    own |= {"metrics": ["my_science.metrics:colour_histogram"], "overrides": {"network.channels": 16, "training.batch": 256}}
    _, tasks = small(tmp_path, epochs=[1], **own)
    edm2 = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
    compiled = [*edm2, "compile", "experiment.yaml", "--store", str(tmp_path / "store"), "--out", "package.yaml"]
    said = subprocess.run(compiled, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "Own code, my_science, is in" in said
    shutil.rmtree(tmp_path / "my_science")  # a pod has not the user's disk
    kfp.local.init(kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"), raise_on_error=True)
    load_component_from_file(str(tmp_path / "package.yaml"))()
    metrics = load(open_store(str(tmp_path / "store")), next(task.ref for task in tasks if task.stage == "metrics"))
    assert metrics is not None
    assert 0 <= metrics.metadata["values"]["colour_histogram"] <= 1


def command_of(package: Path, executor: str, executor_input: dict[str, Any]) -> list[str]:
    """The command of a container as Kubeflow's launcher starts it."""
    spec = next(yaml.safe_load_all(package.read_text()))
    container = spec["deploymentSpec"]["executors"][executor]["container"]
    parts: list[str] = [*container["command"], *container["args"]]
    return [json.dumps(executor_input) if part == "{{$}}" else part for part in parts]


def executor_input(folder: Path, parameters: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
    """An ExecutorInput as KFP 2.17's driver writes it."""
    artifacts = {
        name: {
            "artifacts": [
                {
                    "name": name,
                    "type": {"schemaTitle": kind, "schemaVersion": "0.0.1"},
                    "uri": f"{folder}/{name}",
                    "metadata": {},
                }
            ]
        }
        for name, kind in outputs.items()
    }
    return {
        "inputs": {"parameterValues": parameters},
        "outputs": {"artifacts": artifacts, "outputFile": f"{folder}/kfp_outputs/output_metadata.json"},
    }


def started(tmp_path: Path, stage: str, **settings: Any) -> tuple[Task, list[Task], list[str], Path]:
    """A task of the stage, the plan, the command that does it, and the folder of its outputs."""
    read, tasks = small(tmp_path, **settings)
    store = tmp_path / "store"
    run = open_run(open_store(str(store)), read, tasks, {})
    (package,) = compile(tasks, read, run.id, None, str(store))
    package.write(tmp_path / "package.yaml")
    task = next(task for task in tasks if task.stage == stage)
    out = tmp_path / "out"
    kinds = {"prepare": {"data": "system.Dataset"}, "snapshot": {"snapshot": "system.Model", "curves": "system.HTML"}}
    (of, name), *_ = [(of, names[task.ref]) for of, group in grouped(tasks).items() if task.ref in (names := named(tasks, group))]
    plan = put(run.store, Packed.of(read.name, read.text, tasks, {}), run.id, "")
    parameters = {"task": name, "of": of, "plan": plan}
    return task, tasks, command_of(tmp_path / "package.yaml", f"exec-{stage}", executor_input(out, parameters, kinds[stage])), out


def test_an_executor_input_as_kubeflow_writes_it_runs_a_body(tmp_path: Path) -> None:
    task, _, command, out = started(tmp_path, "prepare")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    manifest = load(open_store(str(tmp_path / "store")), task.ref)
    assert manifest is not None
    written = json.loads((out / "kfp_outputs/output_metadata.json").read_text())["artifacts"]["data"]["artifacts"][0]
    assert written["metadata"]["location"].endswith(f"{manifest.ref.folder}/{manifest.attempt}")
    assert None not in written["metadata"].values()
    assert str(manifest.ref.manifest) in (out / "data").read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "done: digits · prepare data" in done.stdout
    assert "reused: digits · prepare data" in again.stdout


@pytest.mark.slow
def test_a_failed_task_is_a_failed_component_with_words_and_a_line_in_the_report(tmp_path: Path) -> None:
    task, _, command, out = started(tmp_path, "snapshot")  # its data were never prepared
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "its input 'data' is not in the store" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (out / "kfp_outputs/output_metadata.json").exists()
    from components.kubeflow import Artifact
    from components.report.component import component as finish

    page, latest = (Artifact(name, str(tmp_path / name)) for name in ("page", "latest"))
    finish(command_run(command), str(tmp_path / "store"), "", "", page, latest)
    results = json.loads((tmp_path / "store/runs" / command_run(command) / "results.json").read_text())
    [state] = [entry for entry in results["run"]["tasks"] if entry["task"] == str(task.ref)]
    assert state["state"] == "failed"
    assert "its input 'data' is not in the store" in state["reason"]


def command_run(command: list[str]) -> str:
    [values] = [json.loads(part) for part in command if part.startswith('{"inputs"')]
    return str(values["inputs"]["parameterValues"]["plan"].rpartition("/runs/")[2].partition("/")[0])


@pytest.mark.slow
def test_a_terminated_body_has_its_training_save_and_the_next_one_goes_on(tmp_path: Path) -> None:
    task, _, command, out = started(tmp_path, "snapshot", epochs=[30])
    subprocess.run(started(tmp_path, "prepare", epochs=[30])[2], capture_output=True, check=True)
    log = tmp_path / "store/runs" / command_run(command) / "logs" / f"{task.stage}-{task.key}" / "0.log"
    terminate(command, log, '"progress"')
    store = open_store(str(tmp_path / "store"))
    assert load(store, task.ref) is None
    assert not (out / "snapshot").exists()
    log.unlink()
    terminate(command, log, '"restart"')
    restart = next(json.loads(line.removeprefix("@edm2 ")) for line in log.read_text().splitlines() if '"restart"' in line)
    assert restart["step"] > 0


def terminate(command: list[str], log: Path, when: str) -> None:
    """Start a body, and as soon as its training says `when`, signal its process group as Argo does; returns when training has stopped."""
    body = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(log, when)
        os.killpg(body.pid, signal.SIGTERM)
        assert body.wait(30) != 0
        wait_for(log, '"interrupted"')  # by the body, which outlives the shell around it
    finally:
        with suppress(ProcessLookupError):
            os.killpg(body.pid, signal.SIGKILL)


def wait_for(log: Path, text: str) -> None:
    wait_until(
        lambda: log.exists() and text in log.read_text(), 90, failing=lambda: log.read_text() if log.exists() else "nothing was printed"
    )
