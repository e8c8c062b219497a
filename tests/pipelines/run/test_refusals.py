"""Trainings do not go on under changed code, and lost snapshots are not made again, unless that is asked for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.record.plan_parameter import Packed
from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.provenance.science import PACKAGE, science_of
from edm2core.store.leases import acquire
from edm2core.store.local import LocalStore
from edm2core.store.scratch import Scratch
from pipelines.cli.compile import command as compile_command
from pipelines.cli.plan import command as plan_command
from pipelines.inputs.user_files import planned
from pipelines.run.refusals import continued, lost_snapshots, refuse_continued, refuse_lost

TEXT = "name: x\nrecipes: [digits/G]\nepochs: [10, 20]\nmetrics: [fd]\nsample: {count: 100}\n"
OTHER = "0123456789" * 2


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "e.yaml").write_text(TEXT)
    return tmp_path / "e.yaml"


@pytest.fixture
def tasks(experiment: Path) -> list[Task]:
    return plan(load_experiment(experiment), {"data:digits/G": "builtin:digits"})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, tasks: list[Task], slot: int, epochs: float, science: str) -> None:
    """A state of the training, as far as its record goes."""
    scratch = Scratch(store, trajectory_ref(next(task for task in tasks if task.stage == "snapshot")).scratch, 1)
    scratch.put(f"state-{slot}", b"state", about={"epochs": epochs, "science": science, "code": "0.1.0+old"} if science else None)


def made(task: Task, science: str) -> Manifest:
    provenance = {"science": science, "code_version": "0.1.0+old"}
    return Manifest(task.stage, task.version, task.key, task.title, task.settings, {}, {}, "a", {}, {"counts": {}}, provenance)


def accepted(package: str) -> bool:
    """Whether the plan in a package lets a training go on."""
    (packed,) = re.findall("packed=([A-Za-z0-9+/=]+)", package)
    return any(task.get("accept_code") for task in Packed.loads(packed).tasks)


def test_a_training_whose_state_is_of_other_science_is_named(tasks: list[Task], store: LocalStore) -> None:
    assert continued(tasks, {}, store) == []
    put(store, tasks, 0, 7.5, OTHER)
    (found,) = continued(tasks, {}, store)
    with pytest.raises(InputError, match=r"train to epoch 10 \(from science 0123456789, 0\.1\.0\+old\)") as refused:
        refuse_continued([found], store)
    assert "--accept-code" in refused.value.do_next
    refuse_continued([], store)


@pytest.mark.parametrize(
    "states", [[(7.5, science_of("snapshot"))], [(7.5, OTHER), (5, science_of("snapshot"))], [(7.5, "")], [(10.5, OTHER)]]
)
def test_states_of_this_or_unknown_science_or_beyond_the_wanted_epoch_are_not_refused(
    states: list[tuple[float, str]], tasks: list[Task], store: LocalStore
) -> None:
    for slot, (epochs, science) in enumerate(states):
        put(store, tasks, slot, epochs, science)
    assert continued(tasks, {}, store) == []


def test_a_finished_training_and_one_in_progress_are_not_refused(tasks: list[Task], store: LocalStore) -> None:
    put(store, tasks, 0, 7.5, OTHER)
    there = {task.ref: made(task, OTHER) for task in tasks if task.stage == "snapshot"}
    assert continued(tasks, there, store) == []
    with acquire(store, trajectory_ref(next(task for task in tasks if task.stage == "snapshot")), ""):
        assert continued(tasks, {}, store) == []


def test_what_is_accepted_is_in_the_tasks_and_in_no_key(experiment: Path, tasks: list[Task]) -> None:
    accepted = [Task.from_json(json.loads(json.dumps(task.to_json()))) for task in planned(load_experiment(experiment), accept_code=True)]
    assert {task.accept_code for task in accepted if task.stage == "snapshot"} == {True}
    assert not [task for task in accepted if task.stage != "snapshot" and task.accept_code]
    assert [task.ref for task in accepted] == [task.ref for task in tasks]
    assert not [task for task in tasks if "accept_code" in task.to_json()]  # earlier versions would not take it


def test_a_package_carries_what_was_accepted(experiment: Path, tmp_path: Path) -> None:
    for arguments, carries in ([], False), (["--accept-code"], True):
        done = CliRunner().invoke(compile_command, [str(experiment), "--out", str(tmp_path / "p.yaml"), *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        assert accepted((tmp_path / "p.yaml").read_text()) == carries


def test_plan_says_how_many_results_other_science_made_and_what_would_go_on(experiment: Path, tasks: list[Task], store: LocalStore) -> None:
    store.write(tasks[0].ref.manifest, made(tasks[0], OTHER).dumps())
    put(store, tasks, 0, 7.5, OTHER)
    said = CliRunner().invoke(plan_command, [str(experiment), "--store", store.uri], catch_exceptions=False).output
    assert "1 of 1 result was made by other science than that of this code" in said
    assert "what computes prepare differs in 0.1.0+old." in said
    assert "train to epoch 10 (from science 0123456789, 0.1.0+old): it would go on under other science" in said


class Copy:
    """A copy of the program whose code can be changed, and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("edm2core", "components", "pipelines"):
            shutil.copytree(PACKAGE.parent / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def edm2(self, *arguments: str, code: int = 0) -> str:
        environment = {"PYTHONPATH": str(self.folder), "PATH": "/usr/bin:/bin", "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
        ran = subprocess.run(command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert ran.returncode == code, ran.stdout
        return ran.stdout

    def write(self, epochs: list[int]) -> None:
        small = {"network.multipliers": [1], "network.attention_resolutions": [], "training.batch": 512}
        values: dict[str, Any] = {"name": "x", "recipes": ["digits/C"], "epochs": epochs, "metrics": [], "probe": False, "overrides": small}
        (self.folder / "e.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.slow
def test_a_changed_loss_makes_no_curve_of_two(tmp_path: Path) -> None:
    place = Copy(tmp_path)
    place.write([1])
    place.edm2("run", "e.yaml", "--store", "store")
    assert "science" not in place.edm2("run", "e.yaml", "--store", "store")

    source = place.folder / "edm2core" / "diffusion/loss.py"
    text = source.read_text()
    found = re.search(r"def edm\(.*\n(?:    .*\n)*?    return (.*)\n", text)
    assert found
    source.write_text(text.replace(found[1], f"2 * ({found[1]})"))
    for verb in (["run", "e.yaml"], ["plan", "e.yaml"]):
        assert "1 of 2 results was made by other science than that of this code" in place.edm2(*verb, "--store", "store")

    place.write([1, 2])
    refused = place.edm2("run", "e.yaml", "--store", "store", code=2)
    assert "Trainings would go on under other science" in refused
    assert "--accept-code" in refused

    place.edm2("run", "e.yaml", "--store", "store", "--accept-code")
    (page,) = [path.read_text() for path in place.folder.glob("store/runs/*/report.html") if "train to epoch 2" in path.read_text()]
    assert "made by several sciences one after the other" in page
    for run in place.folder.glob("store/runs/*"):
        place.edm2("report", run.name, "--store", "store", "--figures", f"figures-{run.name}")
    numbers = [path.read_text() for path in place.folder.glob("figures-*/training-loss.csv")]
    assert sum("under other science (" in text for text in numbers) == 1
    (plan_file,) = [path for path in place.folder.glob("store/runs/*/plan.json") if "accept_code" in path.read_text()]
    assert plan_file


def test_a_snapshot_that_something_was_made_of_and_is_not_there_is_named(tasks: list[Task], store: LocalStore) -> None:

    def find(stage: str, epoch: int) -> Task:
        return next(task for task in tasks if task.stage == stage and task.subject.epoch == epoch)

    assert lost_snapshots(tasks, store) == []  # nothing was made yet
    for stage in ("snapshot", "sample"):
        store.write(find(stage, 10).ref.manifest, b"{}")
    assert lost_snapshots(tasks, store) == []
    store.delete(find("snapshot", 10).ref.manifest)
    store.write(find("snapshot", 20).ref.manifest, b"{}")
    assert lost_snapshots(tasks, store) == [find("snapshot", 10)]
    with pytest.raises(InputError, match="train to epoch 10") as caught:
        refuse_lost(lost_snapshots(tasks, store), store)
    assert "--train-again" in str(caught.value)
    refuse_lost([], store)
