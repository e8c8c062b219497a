"""Metrics that are left out, and said to be, where their extractor's weights are not there."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.registry import WEIGHT_FILES
from edm2core.store import open_store
from edm2core.store.runs import load_absent, open_run
from pipelines.cli.plan import command
from pipelines.inputs.user_files import absent, resolve

TEXT = """\
name: some
recipes: [digits/C]
epochs: [1]
sample: {count: 1100}
metrics: [fd]
optional_metrics: [kid, is, fd_dinov2]
dinov2_weights: dinov2.pth
probe: false
"""


def write(folder: Path, text: str = TEXT) -> Path:
    (folder / "e.yaml").write_text(text)
    return folder / "e.yaml"


def test_what_has_no_weights_is_left_out_with_the_reason_and_recorded(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path))
    tasks, left_out = plan(experiment, resolve(experiment)), absent(experiment)
    assert [task.settings["metrics"] for task in tasks if task.stage == "metrics"] == [["fd", "kid"]]
    assert left_out.keys() == {"is", "fd_dinov2"}
    assert "names no weights of Inception" in left_out["is"]
    assert f"There is no file {tmp_path / 'dinov2.pth'}" in left_out["fd_dinov2"]
    run = open_run(open_store(str(tmp_path / "store")), experiment, tasks, left_out)
    assert load_absent(run) == left_out


def test_the_plan_says_what_is_left_out(tmp_path: Path) -> None:
    said = CliRunner().invoke(command, [str(write(tmp_path)), "--store", str(tmp_path / "store")])
    assert said.exit_code == 0, said.output
    assert "Left out: is. The experiment names no weights of Inception." in said.output


def test_what_has_weights_is_measured(tmp_path: Path) -> None:
    torch.save(dict.fromkeys(WEIGHT_FILES["dinov2"].names, torch.zeros(1)), tmp_path / "dinov2.pth")
    experiment = load_experiment(write(tmp_path))
    tasks = plan(experiment, resolve(experiment))
    assert [task.settings["metrics"] for task in tasks if task.stage == "metrics"] == [["fd"], ["fd", "kid"]]
    assert "dinov2" in {task.settings["extractor"] for task in tasks if task.stage == "extractor"}
    assert absent(experiment).keys() == {"is"}


def test_what_is_required_is_still_refused(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, TEXT.replace("[fd]", "[fd, kid_inception]")))
    assert "is" not in absent(experiment)
    with pytest.raises(InputError, match="weights of Inception"):
        resolve(experiment)


def test_a_wrong_optional_metric_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no metric 'iss'") as caught:
        load_experiment(write(tmp_path, TEXT.replace("is, ", "iss, ")))
    assert "e.yaml, line 6" in (caught.value.where or "")
