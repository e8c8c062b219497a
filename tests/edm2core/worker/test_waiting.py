"""A training that waits for its data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edm2core.config import load_recipe
from edm2core.errors import EdmError, Interrupted
from edm2core.plan.experiment import Experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.stages import prepare
from edm2core.store import open_store
from edm2core.store.results import load
from edm2core.worker import workspace
from edm2core.worker.main import make


def tasks() -> tuple[Task, Task]:
    recipe = load_recipe("digits/C")
    short = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 1, "average_every": 1})})
    experiment = Experiment("x", (short,), (0,), {short.name: (1,)}, {short.name: ()}, False, False, {}, "")
    data, training = plan(experiment, {"data:digits/C": "builtin:digits"})
    return data, training


@pytest.mark.slow
def test_the_training_begins_when_another_process_has_committed_the_data(tmp_path: Path) -> None:
    data, training = tasks()
    command = [sys.executable, "-m", "edm2core.stages.train", json.dumps(training.to_json()), "--store", str(tmp_path), "--wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert f"for {data.ref}, which another job makes" in process.stdout.readline()
    store = open_store(str(tmp_path))
    make(data, store, prepare.run)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert load(store, training.ref) is not None


def test_one_that_waits_can_be_stopped_and_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, training = tasks()
    monkeypatch.setattr(workspace, "LOOK_S", 0.01)
    store = open_store(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "PATIENCE_S", 0)
        with pytest.raises(EdmError, match="is still not in the store") as caught:
            workspace.wait_for_inputs(training, store)
        assert "the job that prepares the data" in caught.value.do_next
    looks: list[None] = []

    def asked() -> None:
        looks.append(None)
        if len(looks) > 3:
            raise Interrupted("stop")

    monkeypatch.setattr(workspace, "stop_if_asked", asked)
    with pytest.raises(Interrupted):
        workspace.wait_for_inputs(training, store)
