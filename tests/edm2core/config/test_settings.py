from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.launcher.profile import Profile
from edm2core.config.describe import fields_of
from edm2core.config.fields import Settings, average_name
from edm2core.config.settings import CalibrationSettings, DiffusionSettings, Recipe, StartSettings, TrainingSettings
from edm2core.config.validate import build
from edm2core.config.yaml_file import Document, load
from edm2core.errors import InputError
from edm2core.plan.experiment import ExperimentFile


def training(epochs: int, average_every: int | None = None) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, batch=1, lr=1.0, average_every=average_every)


@pytest.mark.parametrize("epochs", [64, 100, 1000, 2000, 2001])
def test_a_training_stores_64_averages_the_last_at_its_end(epochs: int) -> None:
    stored = training(epochs).stored_epochs(epochs)
    assert len(stored) == 64
    assert stored[-1] == epochs


def test_a_short_training_stores_one_an_epoch() -> None:
    assert training(40).stored_epochs(40) == list(range(1, 41))


@given(st.integers(1, 5000), st.none() | st.integers(1, 300), st.integers(1, 5000), st.integers(1, 5000))
def test_what_is_stored_by_an_epoch_does_not_depend_on_where_one_looks(epochs: int, every: int | None, one: int, other: int) -> None:
    grid, (early, late) = training(epochs, every), sorted((one, other))
    stored = grid.stored_epochs(late)
    assert stored == sorted(set(stored))
    assert all(1 <= epoch <= late for epoch in stored)
    assert grid.stored_epochs(early) == [epoch for epoch in stored if epoch <= early]
    if every:
        assert stored == list(range(every, late + 1, every))


@pytest.mark.parametrize(("given", "name"), [("fixed", "fixed"), (0.05, "0.050"), ("0.1", "0.100"), ("0.050", "0.050"), (0.075, "0.075")])
def test_an_average_has_one_name(given: object, name: str) -> None:
    assert average_name(given) == name


@pytest.mark.parametrize("given", [True, None, 0, 0.0, -0.1, 0.29, 1, "wide", "nan", 0.0505, []])
def test_a_name_of_no_average_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="must be fixed"):
        average_name(given)


@pytest.mark.parametrize(
    ("path", "epoch", "completed"),
    [
        ("model_999.pth", None, 1000),
        ("/a/model_0.pth", None, 1),
        ("model_9.pth", 7, 7),
        ("best.pth", None, None),
        ("xmodel_9.pth", None, None),
    ],
)
def test_a_checkpoints_name_counts_epochs_from_nought(path: str, epoch: int | None, completed: int | None) -> None:
    assert StartSettings(checkpoint=path, epoch=epoch).completed == completed


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    """It would have no key."""
    with pytest.raises(ValueError, match="finite"):
        DiffusionSettings(p_mean=number)


@pytest.mark.parametrize("widths", [(0.0505,), (0.05, 0.3), (0.0004,), (0.05, 0.05)])
def test_an_average_whose_name_would_round_its_width_is_refused(widths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"at most three decimals|more than once"):
        TrainingSettings(epochs=1, batch=1, lr=1.0, ema_sigma_rel=widths)


def test_a_warm_up_by_whole_epochs_is_of_whole_epochs() -> None:
    with pytest.raises(ValueError, match=r"1\.5 is not whole"):
        TrainingSettings(epochs=1, batch=1, lr=1.0, warmup_epochs=1.5)
    assert TrainingSettings(epochs=1, batch=1, lr=1.0, warmup_epochs=1.5, lr_changes="every_step").warmup_epochs == 1.5


@pytest.mark.parametrize("section", [Recipe, ExperimentFile, CalibrationSettings, Profile])
def test_every_setting_says_what_it_is_in_one_sentence(section: type[Settings]) -> None:
    texts = {name: field.description or "" for name, field in fields_of(section).items()}
    assert {name: text for name, text in texts.items() if not (text[:1].isupper() or text[:1] == "`") or not text.endswith(".")} == {}


def written(text: str, folder: Path) -> Document:
    (folder / "settings.yaml").write_text(text)
    return load(folder / "settings.yaml")


def test_the_error_of_a_wrong_setting_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'batch' must be greater than or equal to 1; it is 0\. Meaning: Images in one optimiser step"):
        build(TrainingSettings, written("{epochs: 1, batch: 0, lr: 1.0}", tmp_path))
    with pytest.raises(InputError, match=r"'lr' is missing\. Meaning: Learning rate"):
        build(TrainingSettings, written("{epochs: 1, batch: 1}", tmp_path))
