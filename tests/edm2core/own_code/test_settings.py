"""Own code in experiments: its settings are refused like any other, and its content is in the keys of what uses it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from edm2core.config.settings import OwnNetworkSettings
from edm2core.errors import InputError
from edm2core.metrics.names import own_metrics
from edm2core.own_code.settings import load_recipe_with_code
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
        ({"solver": "edm2core.diffusion.solvers:heun"}, "must be 'heun', 'euler'"),
        ({"solver": "my_science.solvers.euler_ancestral"}, "or is 'my_science.solvers:euler_ancestral' of own code meant, with a colon"),
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


def test_a_setting_of_own_code_is_swept_like_any_other(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, sample=SOLVER, sweep={"sample.eta": [0.1, 0.4]}))
    assert {recipe.name: dict(recipe.sample.own) for recipe in experiment.recipes} == {
        "digits/G eta=0.1": {"eta": 0.1},
        "digits/G eta=0.4": {"eta": 0.4},
    }
    samples = [task.key for task in planned(experiment) if task.stage == "sample"]
    assert len(set(samples)) == 2


def test_own_code_that_is_swept_has_settings_to_sweep_too(tmp_path: Path) -> None:
    swept = {"diffusion.weighting": ["my_science.loss:soft_min_snr"], "diffusion.gamma": [4.0, 6.0]}
    experiment = load_experiment(write(tmp_path, sweep=swept))
    assert [dict(recipe.diffusion.own) for recipe in experiment.recipes] == [{"gamma": 4.0}, {"gamma": 6.0}]


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"sample.etta": [0.1]}, r"There is no setting to sweep 'sample.etta'. Did you mean 'sample.eta'\?"),
        ({"sample.eta": ["much"]}, "'sample.eta' must be a number"),
        ({"sample.own": [{"eta": 1}]}, "There is no setting to sweep 'sample.own'"),
        ({"diffusion.centre": [1]}, "There is no setting to sweep 'diffusion.centre'"),
    ],
)
def test_a_wrong_setting_in_a_sweep_is_refused_with_its_line(tmp_path: Path, sweep: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_experiment(write(tmp_path, sample=SOLVER, sweep=sweep))
    assert "e.yaml, line" in error.value.where
    assert ".own'?" not in error.value.what


@pytest.mark.parametrize("written", [{"overrides": {"sample.own": {"eta": 1}}}, {"sample": {"own": {}}}, {"overrides": {"sample.owm": 1}}])
def test_the_name_own_is_neither_taken_from_users_nor_told_to_them(tmp_path: Path, written: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        load_experiment(write(tmp_path, **written))
    assert "There is no setting 'sample.ow" in error.value.what
    assert "'own'?" not in error.value.what


def test_a_recipe_file_is_read_with_the_own_code_beside_it_or_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "lab").mkdir()
    for folder in (tmp_path, tmp_path / "lab"):
        text = "extends: digits/G\nnetwork: {use: my_science.nets:TinyDiT, depth: 2}\n"
        (folder / "mine.yaml").write_text(text)
    beside = load_recipe_with_code(str(tmp_path / "mine.yaml"))
    assert isinstance(beside.network, OwnNetworkSettings)
    assert dict(beside.network.own)["depth"] == 2
    assert load_recipe_with_code(str(tmp_path / "lab" / "mine.yaml"), tmp_path) == beside
    with pytest.raises(InputError, match="There is no module or package 'my_science'") as error:
        load_recipe_with_code(str(tmp_path / "lab" / "mine.yaml"))
    assert "--code" in error.value.do_next
    assert "There is no setting 'network.deepness'" in _refusal(tmp_path, "network: {use: my_science.nets:TinyDiT, deepness: 2}")


def _refusal(folder: Path, text: str) -> str:
    (folder / "wrong.yaml").write_text(f"extends: digits/G\n{text}\n")
    with pytest.raises(InputError) as error:
        load_recipe_with_code(str(folder / "wrong.yaml"))
    return error.value.what


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("data.format", "my_science.data:shapes"),
        ("network.use", "my_science.nets:TinyDiT"),
        ("diffusion.weighting", "my_science.loss:soft_min_snr"),
        ("training.lr_changes", "my_science.lr:cosine_restarts"),
        ("training.optimizer", "my_science.opt:momentum"),
        ("sample.solver", "my_science.solvers:euler_ancestral"),
    ],
)
def test_a_dot_where_a_colon_belongs_is_told_for_every_setting(tmp_path: Path, setting: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"or is '{meant}' of own code meant") as error:
        load_experiment(write(tmp_path, overrides={setting: meant.replace(":", ".")}))
    assert "e.yaml, line" in error.value.where


TOLD = """
from torch import nn


class Told(nn.Module):
    def __init__(self, image_channels: int, augment_labels: int = 0, *, width: int = 4) -> None:
        super().__init__()
        self.image = nn.Conv2d(image_channels, image_channels, 3, padding=1)
        self.how = nn.Linear(augment_labels, image_channels, bias=False) if augment_labels else None

    def forward(self, x, c_noise, labels=None, augment=None):
        y = self.image(x)
        return y if augment is None else y + self.how(augment)[:, :, None, None]
"""


def test_an_own_network_is_told_of_augmentation_or_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    base = {"probe": False, "overrides": {"training.augment": {}, "network.use": "told:Told"}}
    network = load_experiment(write(tmp_path, **base)).recipes[0].network
    assert isinstance(network, OwnNetworkSettings)
    assert network.augment_labels == 9
    base["overrides"]["network.use"] = "my_science.nets:TinyDiT"
    with pytest.raises(InputError, match="takes no augment_labels") as error:
        load_experiment(write(tmp_path, **base))
    assert "e.yaml, line" in error.value.where


HISTOGRAM = "my_science.metrics:colour_histogram"


def metric_tasks(folder: Path, *metrics: Any) -> dict[str, Task]:
    planned_tasks = planned(load_experiment(write(folder, metrics=["fd", *metrics])))
    return {task.title.partition(" · ")[2].partition(" · ")[2]: task for task in planned_tasks if task.stage == "metrics" and task.code}


def test_a_metrics_settings_are_in_its_key_and_its_name(tmp_path: Path) -> None:
    (plain,) = metric_tasks(tmp_path, HISTOGRAM).values()
    both = metric_tasks(tmp_path, HISTOGRAM, {"use": HISTOGRAM, "bins": 8})
    assert list(both) == ["colour histogram at epoch 1", "colour histogram, bins 8 at epoch 1"]
    same, other = both.values()
    assert same.key == plain.key
    assert plain.settings == {"metrics": [HISTOGRAM]}
    assert other.settings == {"metrics": [HISTOGRAM], "own": {"bins": 8}}
    assert other.key == own_key(other) != plain.key
    (default,) = metric_tasks(tmp_path, {"use": HISTOGRAM, "bins": 16}).values()
    assert default.key == plain.key
    assert own_metrics(other.settings)[0].result == "colour_histogram_bins_8"


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"use": HISTOGRAM, "bin": 8}, r"There is no setting 'metrics.bin'. Did you mean 'bins'\?"),
        ({"use": HISTOGRAM, "bins": "many"}, "'metrics.bins' must be a whole number"),
        ({"use": "fid", "bins": 8}, "Settings belong to a metric of own code"),
        ({"bins": 8}, "Settings belong to a metric of own code"),
        ("needs_more:distance", "The setting 'metrics.scale' is missing"),
    ],
    ids=str,
)
def test_a_metrics_wrong_setting_is_refused_with_its_line(tmp_path: Path, metric: Any, words: str) -> None:
    (tmp_path / "needs_more.py").write_text("def distance(samples, real, *, scale: float):\n    return scale\n")
    with pytest.raises(InputError, match=words) as error:
        load_experiment(write(tmp_path, metrics=[metric]))
    assert "e.yaml, line" in error.value.where
