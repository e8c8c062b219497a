"""Settings given beside an experiment's file."""

from pathlib import Path

import pytest

from edm2core.config.given import parse_given
from edm2core.config.yaml_file import parse
from edm2core.errors import InputError
from edm2core.plan.experiment import Experiment, experiment_of, load_experiment

FILE = """# An experiment.
name: x  # its name
recipes: [digits/C, digits/E]
epochs:
  - 1
  - 2
# What is measured:
metrics: [fd]
overrides: {training.lr: 5e-3, network.dropout: 0.1}
"""


def read(tmp_path: Path, *given: str, text: str = FILE) -> Experiment:
    (tmp_path / "e.yaml").write_text(text)
    return load_experiment(tmp_path / "e.yaml", [parse_given(each) for each in given])


def test_a_setting_of_recipes_counts_for_every_recipe_and_before_the_files_own(tmp_path: Path) -> None:
    experiment = read(tmp_path, "training.lr=1e-3", "sample.count=70")
    assert {(recipe.training.lr, recipe.sample.count, recipe.network.dropout) for recipe in experiment.recipes} == {(1e-3, 70, 0.1)}


def test_a_setting_of_the_experiment_replaces_its_own(tmp_path: Path) -> None:
    experiment = read(tmp_path, "epochs=[3]", "seeds=[0, 1]", "name=y")
    assert (experiment.name, experiment.seeds, experiment.epochs["digits/C"]) == ("y", (0, 1), (3,))


def test_the_recorded_text_says_the_same_and_keeps_comments(tmp_path: Path) -> None:
    experiment = read(tmp_path, "training.lr=1e-3", "epochs=[3]", "seeds=[0, 1]")
    assert "# What is measured:\n" in experiment.text
    assert "name: x  # its name\n" in experiment.text
    (tmp_path / "again.yaml").write_text(experiment.text)
    again = load_experiment(tmp_path / "again.yaml")
    assert (again.recipes, again.epochs, again.seeds) == (experiment.recipes, experiment.epochs, experiment.seeds)


@pytest.mark.parametrize(
    "text",
    [
        "{name: x, recipes: [digits/C], epochs: [1], metrics: [fd]}",
        "name: x\nrecipes: [digits/C]\nepochs: &e [1]\nmetrics: [fd]\nseeds: *e\n...\n",
        "name: x\nrecipes: [digits/C]\nmetrics: [fd]\nepochs: [1]",
        "name: x\nrecipes: [digits/C]\nmetrics: [fd]\nepochs: [1]\noverrides:\n  # a comment\n  training.lr: 1e-2  # another\n",
    ],
)
def test_the_recorded_text_is_right_however_the_file_is_written(tmp_path: Path, text: str) -> None:
    experiment = read(tmp_path, "epochs=[2]", "training.lr=1e-3", text=text)
    values = parse(experiment.text, "").values
    assert values["epochs"] == [2]
    assert values["overrides"] == {"training.lr": 1e-3}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("training.lr=fast", "'training.lr' must be a number, such as 0.5 or 1e-3; it is 'fast'."),
        ("training.lr=-1", "'training.lr' must be greater than 0; it is -1."),
        ("trainin.lr=1e-3", "There is no setting 'trainin'. Did you mean 'training'?"),
        ("sead=1", "There is no setting 'sead'. Did you mean 'seeds'?"),
        ("epochs=[1000]", "beyond the end"),
        ("training.lr", "--set takes a setting and its value."),
        ("training.lr=[1", "malformed"),
        ("name=y\nseeds: [1]", "--set takes one setting."),
    ],
)
def test_a_wrong_one_is_named_as_in_the_file_and_where_is_the_option(tmp_path: Path, given: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, given)
    assert words in caught.value.what
    assert caught.value.where.startswith(f"--set {given.splitlines()[0]}")


def test_one_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="given twice"):
        read(tmp_path, "training.lr=1", "training.lr=2")


def test_a_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = "name: x\nrecipes: [cifar10/C]\nepochs: [1]\nmetrics: []\n"
    experiment = read(tmp_path, "data.source=mine.tar.gz", "data.digest=null", text=text)
    assert experiment.recipes[0].data.source == str(tmp_path / "elsewhere" / "mine.tar.gz")
    assert str(tmp_path / "elsewhere" / "mine.tar.gz") in experiment.text


def test_an_experiment_may_be_a_dictionary() -> None:
    values = {"name": "x", "recipes": ["digits/C"], "epochs": (1,), "metrics": ["fd"], "overrides": {"training.lr": 1e-3}}
    experiment = experiment_of(values)
    assert experiment.recipes[0].training.lr == 1e-3
    assert parse(experiment.text, "").values["epochs"] == [1]
    for wrong, words in (({"epochs": [0]}, "greater than or equal to 1"), ({"metrics": {object()}}, "what YAML does not have")):
        with pytest.raises(InputError, match=words) as caught:
            experiment_of({**values, **wrong})
        assert caught.value.where == "the experiment given as a dictionary"
