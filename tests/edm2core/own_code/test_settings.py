"""Own code in experiments: its settings are refused like any other, and its content is in the keys of what uses it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.tasks import Task, own_key
from pipelines.inputs.user_files import planned

MY_SCIENCE = Path(__file__).parents[2] / "data" / "my_science"
SOLVER = {"solver": "my_science.solvers:euler_ancestral"}


def write(folder: Path, **settings: Any) -> Path:
    if not (folder / "my_science").exists():
        shutil.copytree(MY_SCIENCE, folder / "my_science", ignore=shutil.ignore_patterns("__pycache__"))
    base = {"name": "own", "recipes": ["digits/G"], "epochs": [1], "metrics": ["fd"], "probe": {"epochs": 1}}
    (folder / "e.yaml").write_text(yaml.safe_dump({**base, **settings}))
    return folder / "e.yaml"


def keys(folder: Path, **settings: Any) -> dict[str, str]:
    return {task.title: task.key for task in planned(load_experiment(write(folder, **settings)))}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {title.rpartition(" · ")[2] for title in before if before[title] != after[title]}


def test_own_settings_are_typed_and_kept(tmp_path: Path) -> None:
    sample = load_experiment(write(tmp_path, sample={**SOLVER, "eta": 0.5})).recipes[0].sample
    assert dict(sample.own) == {"eta": 0.5}
    assert sample.model_validate(sample.model_dump(mode="json")) == sample


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({**SOLVER, "etta": 1}, r"There is no setting 'sample.etta'. Did you mean 'eta'\?"),
        ({**SOLVER, "eta": "much"}, "'sample.eta' must be a number"),
        ({**SOLVER, "own": {"eta": 1}}, "There is no setting 'sample.own'"),
        ({"solver": "my_science.solvers:euler_ancestra"}, "Did you mean 'euler_ancestral'"),
        ({"solver": "my_sciense.solvers:x"}, "There is no module or package 'my_sciense'"),
        ({"solver": "edm2core.diffusion.solvers.heun:heun"}, "must be 'heun', 'euler'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_line(tmp_path: Path, sample: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_experiment(write(tmp_path, sample=sample))
    assert "e.yaml, line" in error.value.where


def test_a_changed_line_moves_the_keys_of_what_stands_on_it_and_no_other(tmp_path: Path) -> None:
    before = keys(tmp_path, sample=SOLVER)
    file = tmp_path / "my_science" / "solvers.py"
    file.write_text(file.read_text() + "\n# another thought\n")
    assert changed(before, keys(tmp_path, sample=SOLVER)) == {"1000 samples at epoch 1", "FD (digits features) at epoch 1"}


def test_code_can_lie_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "ideas").mkdir()
    path = write(tmp_path, sample=SOLVER, code="ideas")
    shutil.move(tmp_path / "my_science", tmp_path / "ideas" / "my_science")
    assert load_experiment(path).code["my_science"].path == tmp_path / "ideas" / "my_science"


def test_a_task_records_its_code_and_its_key_follows_from_its_record(tmp_path: Path) -> None:
    tasks = planned(load_experiment(write(tmp_path, sample=SOLVER)))
    sample = next(task for task in tasks if task.stage == "sample")
    read = Task.from_json(sample.to_json())
    assert read == sample
    assert read.code["my_science"].startswith("sha256:")
    assert own_key(read) == sample.key
    assert not any(task.code for task in tasks if task.stage != "sample")
