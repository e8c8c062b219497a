"""A job that prepares its own data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edm2core.config import load_recipe
from edm2core.config.experiment import Experiment
from edm2core.errors import Interrupted
from edm2core.plan import Task, plan
from edm2core.stages import prepare_and_train, signals
from edm2core.store import open_store
from edm2core.store.results import load


def tasks() -> tuple[Task, Task]:
    recipe = load_recipe("digits/C")
    short = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 1, "average_every": 1})})
    experiment = Experiment("x", (short,), (0,), {short.name: (1,)}, {short.name: ()}, False, False, {}, "")
    data, training = plan(experiment, {"data:digits/C": "builtin:digits"})
    return data, training


@pytest.mark.slow
def test_the_data_are_prepared_and_the_snapshot_is_committed(tmp_path: Path) -> None:
    data, training = tasks()
    command = [sys.executable, "-m", "edm2core.stages.prepare_and_train", json.dumps(training.to_json()), "--store", str(tmp_path)]
    environment = {**os.environ, "EDM2_PREPARE": json.dumps(data.to_json())}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    store = open_store(str(tmp_path))
    assert load(store, data.ref) is not None
    assert load(store, training.ref) is not None


def test_other_ranks_leave_preparing_to_the_first_and_can_be_stopped_while_they_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, training = tasks()
    monkeypatch.setenv("EDM2_PREPARE", json.dumps(data.to_json()))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(prepare_and_train, "LOOK_S", 0.01)
    looks: list[None] = []

    def asked() -> None:
        looks.append(None)
        if len(looks) > 3:
            raise Interrupted("stop")

    monkeypatch.setattr(signals, "stop_if_asked", asked)
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted):
        prepare_and_train.work(training, store)
    assert load(store, data.ref) is None
