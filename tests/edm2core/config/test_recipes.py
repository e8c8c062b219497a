from pathlib import Path

import pytest

from edm2core.config import load_recipe, recipe_names
from edm2core.config.recipes import recipe_document
from edm2core.config.settings import Recipe
from edm2core.config.validate import build
from edm2core.errors import InputError


def test_every_published_recipe_loads_under_its_own_name() -> None:
    assert {f"{data}/{config}" for data in ("cifar10", "cifar100", "tinyimagenet", "digits") for config in "CEG"} <= set(recipe_names())
    assert [load_recipe(name).name for name in recipe_names()] == recipe_names()


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "lr", "t_ref", "flip"),
    [
        ("cifar10/C", 1000, 512, 4e-4, None, True),
        ("cifar10/E", 2000, 512, 2e-2, 400, True),
        ("cifar10/G", 2000, 512, 2e-2, 400, True),
        ("cifar100/C", 1000, 512, 4e-4, None, True),
        ("cifar100/E", 2000, 512, 2e-2, 400, True),
        ("tinyimagenet/C", 2000, 192, 1.5e-4, None, False),
        ("tinyimagenet/E", 2000, 192, 7.5e-3, 400, False),
        ("tinyimagenet/G", 2000, 192, 7.5e-3, 400, False),
    ],
)
def test_recipes_are_as_published(name: str, epochs: int, batch: int, lr: float, t_ref: float | None, flip: bool) -> None:
    recipe = load_recipe(name)
    training = recipe.training
    assert (training.epochs, training.batch, training.lr, training.t_ref_epochs, training.flip) == (epochs, batch, lr, t_ref, flip)
    assert (training.warmup_epochs, training.betas, training.ema_beta, training.precision) == (200, (0.9, 0.999), 0.9993, "fp16")
    assert recipe.probe.t == ((5,) if name.startswith("tiny") else (4,))
    assert recipe.network.dropout == (0.1 if name.startswith("tiny") else 0.13)
    switches = (recipe.network.weights, recipe.network.norm, recipe.network.magnitude_preserving, recipe.network.clip)
    expected = {"C": ("plain", "group", False, None), "E": ("forced", "group", False, 256.0), "G": ("forced", "pixel", True, 256.0)}
    assert switches == expected[name[-1]]


def test_a_recipe_of_ones_own_starts_from_a_published_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: cifar10/E\nnetwork:\n  dropout: 0.0\ntraining: {lr: 0.01}\n")
    recipe = build(Recipe, recipe_document("mine.yaml", tmp_path))
    assert recipe.name == "own/mine"
    assert (recipe.network.dropout, recipe.training.lr, recipe.network.weights) == (0.0, 0.01, "forced")


def test_a_later_one_of_those_extended_lies_over_an_earlier(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("extends: digits/C\ntraining: {lr: 0.5, batch: 7}\n")
    (tmp_path / "mine.yaml").write_text("extends: [low.yaml, ladder/E]\ntraining: {batch: 9}\n")
    recipe = build(Recipe, recipe_document("mine.yaml", tmp_path))
    assert (recipe.name, recipe.data.format, recipe.network.weights) == ("own/mine", "digits", "forced")
    assert (recipe.training.lr, recipe.training.t_ref_epochs, recipe.training.batch) == (0.5, 400, 9)


def test_a_rung_of_the_ladder_is_no_recipe() -> None:
    with pytest.raises(InputError, match="no recipe 'ladder/A'"):
        load_recipe("ladder/A")


@pytest.mark.parametrize("extends", ["3", "[digits/C, 3]", "{digits: C}"])
def test_what_cannot_be_extended_is_refused_with_its_line(tmp_path: Path, extends: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: x\nextends: {extends}\n")
    with pytest.raises(InputError, match="'extends' must name a recipe") as caught:
        recipe_document("mine.yaml", tmp_path)
    assert f"{tmp_path / 'mine.yaml'}, line 2" in caught.value.where.split("; ")


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(InputError, match="extends itself"):
        recipe_document("a.yaml", tmp_path)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'cifar10/E'"):
        load_recipe("cifar10/e")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network: {drpout: 0.1}", "Did you mean 'dropout'"),
        ("network: {dropout: yes}", "'network.dropout'"),
        ("network: {dropout: 1.5}", "less than 1"),
        ("network: {weights: normal}", "'plain', 'normalized' or 'forced'"),
        ("network: {channels: 48}", "multiple of 32"),
        ("network: {attention_resolutions: [7]}", "no level has side 7"),
        ("network: {attention_head_channels: 96}", "256 channels cannot be cut into heads of 96"),
        ("network: {weights: forced, init: he}", "start as N"),
        ("network: {norm: pixel, attention_norm: group}", "must be 'pixel' too"),
        ("training: {batch: 0}", "greater than or equal to 1"),
        ("training: {lr: fast}", "'training.lr'"),
        ("training: {epochs: 10.5}", "'training.epochs'"),
        ("data: {format: cifar}", "'cifar10'"),
        ("sample: {sigma_min: 90.0}", "sample.sigma_min, sample.sigma_max: 90.0 is not below 80.0"),
        ("colour: red", "no setting 'colour'"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: cifar10/C\n{text}\n")
    with pytest.raises(InputError, match=words) as caught:
        build(Recipe, recipe_document("mine.yaml", tmp_path))
    assert f"{tmp_path / 'mine.yaml'}, line 2" in caught.value.where.split("; ")


@pytest.mark.parametrize(("overrides", "section"), [({}, "sample"), ({"sample.ema": ["0.050"]}, "probe")])
def test_an_average_that_is_not_kept_cannot_be_looked_at(overrides: dict[str, object], section: str) -> None:
    with pytest.raises(InputError, match=rf"{section}\.ema, training\.ema_beta: there is no fixed EMA"):
        load_recipe("cifar10/C", {"training.ema_beta": None, **overrides})


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: cifar10/C\nnetwork: {drpout: 0.1}\ntraining: {batch: -1}\n")
    with pytest.raises(InputError, match="2 settings are wrong") as caught:
        build(Recipe, recipe_document("mine.yaml", tmp_path))
    assert "line 2" in str(caught.value)
    assert "line 3" in str(caught.value)
