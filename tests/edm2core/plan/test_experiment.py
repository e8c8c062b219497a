from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from edm2core.config.settings import ProbeSettings
from edm2core.errors import InputError
from edm2core.metrics.names import Metric
from edm2core.plan.experiment import load_experiment
from edm2core.plan.subject import Swept

GOOD = "name: demo\nrecipes: [digits/C, digits/E]\nepochs: [20, 10]\nmetrics: [fd]\n"


def write(folder: Path, text: str) -> Path:
    (folder / "e.yaml").write_text(text)
    return folder / "e.yaml"


def test_sections_and_overrides_reach_every_recipe(tmp_path: Path) -> None:
    text = GOOD + "sample: {count: 100}\nprobe: {epochs: 3}\noverrides: {network.dropout: 0.2, training.lr: 0.5}\n"
    experiment = load_experiment(write(tmp_path, text))
    for recipe in experiment.recipes:
        assert (recipe.sample.count, recipe.probe.epochs, recipe.network.dropout, recipe.training.lr) == (100, 3, 0.2, 0.5)
    assert experiment.epochs == {"digits/C": (10, 20), "digits/E": (10, 20)}


def test_without_epochs_a_recipe_says_when_to_look(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [digits/C]\nmetrics: [fd]\noverrides: {training.epochs: 50, training.snapshot_every: 20}\n"
    assert load_experiment(write(tmp_path, text)).epochs == {"digits/C": (20, 40, 50)}


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [cifar10/C]\nmetrics: []\noverrides: {data.source: here/cifar.tar.gz}\n"
    assert load_experiment(write(tmp_path, text)).recipes[0].data.source == str(tmp_path / "here/cifar.tar.gz")


@pytest.mark.parametrize(
    ("change", "words", "line"),
    [
        ("name: ../evil", "'name'", 1),
        ("name: a/b", "'name'", 1),
        ("recipes: [digits/X]", "Did you mean", 2),
        ("recipes: []", "'recipes' must have at least 1", 2),
        ("recipes: [digits/C, digits/C]", "stands more than once", 2),
        ("epochs: []", "'epochs' must have at least 1", 3),
        ("epochs: [-1]", "greater than or equal to 1", 3),
        ("epochs: [0]", "greater than or equal to 1", 3),
        ("epochs: [10, 10]", "10 stands more than once", 3),
        ("epochs: [ten]", "whole number", 3),
        ("epochs: 10", "'epochs'", 3),
        ("epochs: [10, 41]", "beyond the end of digits/C", 3),
        ("metrics: [fdi]", "Did you mean 'fd'", 4),
        ("metrics: [fd_dinov]", "no metric 'fd_dinov'", 4),
        ("metrics: [is_digits]", "Inception score is defined in Inception's features", 4),
        ("sample: {count: 0}", "greater than or equal to 1", 5),
        ("sample: {count: -5}", "greater than or equal to 1", 5),
        ("sample: {count: 64}", "at least 65", 5),
        ("sample: {solver: ddim}", "must be 'heun', 'euler', 'dpmpp_2m', 'dpmpp_2m_sde' or 'unipc'", 5),
        ("sample: {solver: euler, eta: 0.5}", "sample.eta, sample.solver: the solver 'euler' has none", 5),
        ("sample: {order: 2}", "the solver 'heun' has none", 5),
        ("sample: {solver: unipc, order: 4}", "less than or equal to 3", 5),
        ("sample: {schedule: ays}", "must be karras or uniform_logsnr, or a list of noise levels; it is 'ays'", 5),
        ("sample: {schedule: 7}", "must be a list", 5),
        ("sample: {schedule: [80, low]}", "'sample.schedule.1' must be a number", 5),
        ("sample: {schedule: [80]}", "at least two and fall", 5),
        ("sample: {schedule: [80, 5, 5]}", "at least two and fall", 5),
        ("sample: {schedule: [80, 5, 0]}", "at least two and fall", 5),
        ("sample: {schedule: [80, 5], steps: 18}", "the listed noise levels have steps 2; leave steps out", 5),
        ("sample: {schedule: uniform_logsnr, rho: 5}", "the schedule 'karras' alone has one", 5),
        ("sample: {guidance: {weight: 2}}", "trained|also saw images without their class", 5),
        ("sample: {guidance: {wieght: 2}}", "Did you mean 'weight'", 5),
        ("sample: {guidance: {weight: 2, interval: [5, 0.2]}}", "the lowest noise level stands first", 5),
        ("overrides: {training.label_dropout: 0.1}", "no classes to leave out", 5),
        ("sample: {ema: [wide]}", "must be fixed, or a relative width", 5),
        ("sample: {ema: [0.0755]}", "at most three decimals", 5),
        ("sample: {ema: [0.3]}", "below 0.288", 5),
        ("sample: {ema: [fixed, 0.02]}", "0.020 at epoch 10 of digits/C could only be mixed with an error of", 5),
        ("probe: {ema: 0.02}", "could only be mixed", 5),
        ("probe: {blocks: [out_9]}", "The network of digits/C has no decoder block out_9", 5),
        ("probe: {t: [0, 19]}", "greater than or equal to 1", 5),
        ("probe: {t: [19]}", "less than or equal to 18", 5),
        ("probe: {seed: 1}", "Did you mean 'seeds'", 5),
        ("probe: {seeds: [1, 1]}", "1 stands more than once", 5),
        ("probe: {few_shot: [10]}", "less than 1", 5),
        ("diagnostics: {levels: 1}", "greater than or equal to 2", 5),
        ("diagnostics: {image: 9}", "Did you mean 'images'", 5),
        ("diagnostics: {ema: 0.02}", "could only be mixed", 5),
        ("sweep: {training.lr: []}", "at least 1", 5),
        ("sweep: {training.lr: 0.01}", "'sweep.training.lr'", 5),
        ("sweep: {training.lr: [0.01, 1e-2]}", "0.01 stands more than once", 5),
        ("sweep: {training.lr: [0.01, -1]}", "greater than 0", 5),
        ("sweep: {training.lr: [fast]}", "must be a number", 5),
        ("sweep: {training.rl: [0.01]}", "Did you mean 'training.lr'", 5),
        ("sweep: {sample.batch: [9, 18]}", "decides no result by itself", 5),
        ("sweep: {sample.stpes: [9, 18]}", "Did you mean 'sample.steps'", 5),
        ("sweep: {sample.ema: [fixed]}", "decides no result by itself", 5),
        ("sweep: {sample.precision: [fp32, bf61]}", "'fp32', 'bf16' or 'fp16'", 5),
        ("sweep: {sample.precision: [fp32], probe.precision: [fp32]}", "both be called precision", 5),
        ("sweep: {training.epochs: [9, 18]}", "decides no result by itself", 5),
        ("sample: {cuont: 5}", "Did you mean 'count'", 5),
        ("overrides: {network.drop: 0.1}", "Did you mean 'dropout'", 5),
        ("overrides: {training.lr.x: 0.1}", "'training.lr' must be a number", 5),
        ("overrides: {probe.blocks: [nope]}", "has no decoder block nope", 5),
        ("overrides: {sample.count: 2}", "samples are too few", 5),
        ("overrides: {netwrk.dropout: 0.1}", "Did you mean 'network'", 5),
        ("seeds: [-1]", "greater than or equal to 0", 5),
        ("epoch: [1]", "Did you mean 'epochs'", 5),
        ("recipes: digits/C", "must be a list", 2),
        ("recipes: [absent.yaml]", "no recipe file .*absent.yaml", 2),
        ("name: 5", "must be text", 1),
        ("name: a b", "up to 63 letters", 1),
        ("overrides: {training.lr: .inf}", "'training.lr' must be a finite number", 5),
        ("overrides: {diffusion.p_mean: .nan}", "must be a finite number", 5),
        ("sweep: {training.lr: [.inf]}", "must be a finite number", 5),
        ("overrides: {network.channels: 7}", "network.channels.*: 7 is not a multiple of 32", 5),
        ("overrides: {network.resolution: 16, network.attention_resolutions: []}", "network.resolution is 16; digits has 8", 5),
        ("overrides: {network.image_channels: 3}", "network.image_channels is 3; digits has 1", 5),
        ("overrides: {network.classes: 3}", "network.classes is 3; digits has 10", 5),
        ("overrides: {training.batch: 1439}", "training.batch is 1,439; digits has 1,438 images", 5),
        ("sample: {sigma_max: 1e300}", "less than or equal to 1000000", 5),
        ("overrides: {network: 5}", "'network' must be names with values", 5),
        ("overrides: {5: 1}", "'overrides.5' must be text", 5),
        ("overrides: [1]", "'overrides' must be names with values", 5),
        ("sample: {draws: 1001}", "less than or equal to 1000", 5),
        ("overrides: {training.epochs: 1000001}", "less than or equal to 1000000", 5),
    ],
)
def test_what_an_experiment_cannot_say_is_refused_with_its_line(tmp_path: Path, change: str, words: str, line: int) -> None:
    lines = GOOD.splitlines()
    names = [text.split(":")[0] for text in lines]
    name = change.split(":")[0]
    lines = [change if n == name else text for n, text in zip(names, lines, strict=True)] + ([change] if name not in names else [])
    with pytest.raises(InputError, match=words) as caught:
        load_experiment(write(tmp_path, "\n".join(lines)))
    assert caught.value.where.endswith(f"e.yaml, line {line}")


def test_a_sweep_makes_each_recipe_at_each_value_a_recipe_of_its_own(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, GOOD + "sweep: {training.lr: [5e-3, 1e-2], network.dropout: [0, 0.1]}\n"))
    names = [f"digits/{config} lr={lr} dropout={dropout}" for config in "CE" for lr in ("0.005", "0.01") for dropout in ("0", "0.1")]
    assert [recipe.name for recipe in experiment.recipes] == names
    assert [recipe.dataset for recipe in experiment.recipes] == ["digits"] * 8
    assert [(r.training.lr, r.network.dropout) for r in experiment.recipes[:4]] == [(0.005, 0), (0.005, 0.1), (0.01, 0), (0.01, 0.1)]
    assert experiment.swept[names[2]] == Swept("digits/C", {"training.lr": 0.01, "network.dropout": 0})
    assert experiment.epochs[names[0]] == (10, 20)


def test_a_swept_setting_cannot_be_overridden_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="overrides") as caught:
        load_experiment(write(tmp_path, GOOD + "overrides: {training.lr: 0.1}\nsweep: {training.lr: [0.2]}\n"))
    assert caught.value.where.endswith("line 6")


def test_a_swept_setting_cannot_stand_in_a_section_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stands in `sample` too"):
        load_experiment(write(tmp_path, GOOD + "sample: {steps: 9}\nsweep: {sample.steps: [9, 18]}\n"))


def test_exact_is_float32_everywhere_whatever_the_recipe_says(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [cifar10/E]\nmetrics: []\nexact: true\n"
    (recipe,) = load_experiment(write(tmp_path, text)).recipes
    for section in (recipe.training, recipe.sample, recipe.probe):
        assert (section.exact, section.precision) == (True, "fp32")


@pytest.mark.parametrize(
    "asked", ["overrides: {training.precision: bf16}", "probe: {precision: bf16}", "sweep: {sample.precision: [fp32, bf16]}"]
)
def test_exact_and_half_precision_contradict_each_other(tmp_path: Path, asked: str) -> None:
    with pytest.raises(InputError, match="exact means fp32, it is bf16"):
        load_experiment(write(tmp_path, f"{GOOD}exact: true\n{asked}\n"))


@pytest.mark.parametrize(
    ("asked", "section"),
    [
        ("overrides: {training.precision: bf16}", "training"),
        ("probe:\n  precision: bf16", "probe"),
        ("sweep:\n  sample.precision: [fp32, bf16]", "sample"),
    ],
)
def test_what_exact_contradicts_is_named_by_its_line_in_the_experiment(tmp_path: Path, asked: str, section: str) -> None:
    with pytest.raises(InputError) as caught:
        load_experiment(write(tmp_path, f"{GOOD}exact: true\n{asked}\n"))
    first, last = (f"{tmp_path / 'e.yaml'}, line {number}" for number in (5, 5 + len(asked.splitlines())))
    assert caught.value.what.startswith(f"{section}.exact, {section}.precision: ")
    assert caught.value.where == f"{first}; {last}"


def test_what_a_recipe_contradicts_is_named_by_its_line_in_both_files(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [cifar10/C]\nmetrics: []\noverrides: {training.exact: true}\n"
    with pytest.raises(InputError, match=r"training\.exact, training\.precision: exact means fp32, it is fp16") as caught:
        load_experiment(write(tmp_path, text))
    mine, theirs = caught.value.where.split("; ")
    assert mine == f"{tmp_path / 'e.yaml'}, line 4"
    assert theirs.startswith("recipes/cifar10/C.yaml, line ")


def test_kid_needs_as_many_samples_as_a_subset_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="999 samples are too few for 'kid', which needs at least 1000"):
        load_experiment(write(tmp_path, "name: x\nrecipes: [digits/C]\nmetrics: [kid]\nsample: {count: 999}\n"))


def test_metrics_are_the_same_in_any_order_and_however_they_are_called(tmp_path: Path) -> None:
    asked = [
        load_experiment(write(tmp_path, f"name: x\nrecipes: [digits/C]\nmetrics: [{metrics}]\n")).metrics
        for metrics in ("fd, recall", "recall_digits, fd, fd_digits")
    ]
    assert asked[0] == asked[1] == {"digits/C": (Metric("fd", "digits"), Metric("recall", "digits"))}


THEIRS = "{source: theirs.npz, extractor: inception, count: 50000, resolution: 32, origin: a page}"


def test_an_imported_reference_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, f"name: x\nrecipes: [cifar10/C]\noverrides: {{reference: {THEIRS}}}\n"))
    assert experiment.recipes[0].reference is not None
    assert experiment.recipes[0].reference.source == str(tmp_path / "theirs.npz")


@pytest.mark.parametrize(
    ("metrics", "reference", "words"),
    [
        ("fid", THEIRS.replace("50000", "10000"), "it is of 10000 images, cifar10 has 50000"),
        ("fid", THEIRS.replace("32", "64"), "images of 64 pixels, the network of 32"),
        ("fid", THEIRS.replace("inception", "pytorch_fid"), "in which no distance is asked for"),
        ("fid, kid", THEIRS, "'kid' needs the training images' own features"),
        ("fid", THEIRS.replace("a page", "''"), "at least 1 character"),
    ],
)
def test_an_imported_reference_of_other_images_or_features_is_refused(tmp_path: Path, metrics: str, reference: str, words: str) -> None:
    text = f"name: x\nrecipes: [cifar10/C]\nmetrics: [{metrics}]\noverrides: {{reference: {reference}}}\n"
    with pytest.raises(InputError, match=words):
        load_experiment(write(tmp_path, text))


def test_fd_is_refused_where_a_data_set_has_no_features_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only digits has"):
        load_experiment(write(tmp_path, "name: x\nrecipes: [cifar10/C]\nmetrics: [fd]\n"))


def test_a_protocol_brings_its_crops_and_refuses_what_contradicts_it(tmp_path: Path) -> None:
    words = "protocol 'fx' has epochs 15, batch 512, lr 0.004, flip true, and here stands epochs 8, batch 32, lr 0.002, flip false"
    with pytest.raises(InputError, match=words) as caught:  # what the recipe says contradicts it
        load_experiment(write(tmp_path, GOOD + "probe: {protocol: fx}\n"))
    assert caught.value.where.endswith("digits/C.yaml, line 22")
    assert ProbeSettings.model_validate({"protocol": "ddae"}).crop == 4
    assert ProbeSettings.model_validate({"protocol": "fx", "seeds": [0, 1], "knn": 20, "features": "fresh"}).crop == 0
    contradictions = (
        ("fx", "crop 4"),
        ("ddae", "crop 0"),
        ("fx", "features cached"),
        ("fx", "validation_share 0.2"),
        ("ddae", "flip false"),
    )
    for protocol, contradiction in contradictions:
        setting, value = contradiction.split()
        with pytest.raises(ValidationError, match=f"and here stands {contradiction};"):
            ProbeSettings.model_validate({"protocol": protocol, setting: yaml.safe_load(value)})


@pytest.mark.parametrize(
    ("settings", "grid", "cached", "holds_out"),
    [
        ({}, False, False, False),
        ({"features": "cached"}, False, True, False),
        ({"blocks": ["all"]}, True, True, True),
        ({"t": [3, 4], "features": "fresh"}, True, False, True),
        ({"t": [3, 4], "protocol": "fx"}, True, False, False),
        ({"t": [4, 4]}, False, False, False),
    ],
)
def test_a_grid_caches_and_holds_out_unless_told_otherwise(settings: dict[str, Any], grid: bool, cached: bool, holds_out: bool) -> None:
    probe = ProbeSettings.model_validate(settings)
    assert (probe.grid, probe.cached, probe.holds_out) == (grid, cached, holds_out)


def test_data_of_fewer_images_than_a_metrics_features_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [digits/C]\nmetrics: [fd, fid]\nsample: {count: 3000}\n"
    with pytest.raises(InputError, match="digits has 1438 images for training, and 'fid' needs at least 2049") as caught:
        load_experiment(write(tmp_path, text))
    assert caught.value.where.endswith("line 3")


@pytest.mark.parametrize("change", ["seeds: [-1]", "seeds: [true]", "sample: {ema: [wide]}", "probe: yes please"])
def test_one_fault_is_told_once(tmp_path: Path, change: str) -> None:
    with pytest.raises(InputError) as caught:
        load_experiment(write(tmp_path, f"{GOOD}{change}\n"))
    assert "settings are wrong" not in caught.value.what
    assert "at least 1 item" not in caught.value.what


def test_a_long_wrong_value_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be up to 63 letters") as caught:
        load_experiment(write(tmp_path, GOOD.replace("demo", "x" * 5000)))
    assert len(caught.value.what) < 300


def test_an_unknown_recipe_of_a_recipe_is_named_with_the_line_that_extends_it(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: own/r\nextends: digits/X\n")
    with pytest.raises(InputError, match="Did you mean 'digits/") as caught:
        load_experiment(write(tmp_path, GOOD.replace("digits/C", "r.yaml")))
    assert caught.value.where == f"{tmp_path / 'r.yaml'}, line 2"


def test_more_snapshots_than_anybody_looks_at_are_refused(tmp_path: Path) -> None:
    text = "name: x\nrecipes: [digits/C]\nmetrics: [fd]\noverrides: {training.epochs: 500000, training.snapshot_every: 10}\n"
    with pytest.raises(InputError, match="50,000 snapshots"):
        load_experiment(write(tmp_path, text))


def test_who_names_no_metrics_hears_of_the_default(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few for 'fid'") as caught:
        load_experiment(write(tmp_path, "name: x\nrecipes: [digits/C]\n"))
    assert "metrics: [fd]" in caught.value.do_next
