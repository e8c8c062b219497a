"""Each check of an experiment refuses what it is for, and names the line of the setting."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edm2core.config.recipes import load_recipe
from edm2core.config.yaml_file import Document, parse
from edm2core.data.formats.folders import Survey
from edm2core.data.split import ClassCount
from edm2core.errors import InputError
from edm2core.metrics.names import Metric
from edm2core.plan import checks
from edm2core.plan.checks import NamedMetric, Request
from edm2core.plan.experiment import load_experiment

IMAGES = {"data.format": "images", "data.source": "cats/", "data.resolution": 8, "data.channels": 1}
STARTED = {"start": {"checkpoint": "model_9.pth"}, "data.standardize": False}
THEIRS = {"source": "theirs.npz", "extractor": "inception", "count": 50_000, "resolution": 32, "origin": "a page"}
SURVEY = Survey([ClassCount("cats", 1000, 200), ClassCount("dogs", 1000, 200)], revised=False)
SWEEP = """
overrides: {network.dropout: 0.1}
sweep:
  network.dropout: [0, 0.1]
  training.lr: [0.1, 1e-1]
  sample.precision: [fp32]
  probe.precision: [fp32]
  sample.batch: [9]
  sample.ema: [fixed]
  training.rl: [0.1]
"""


def request(recipe: str = "digits/C", changes: dict[str, Any] | None = None, **asked: Any) -> Request:
    return Request(load_recipe(recipe, changes), lambda setting: f"line of {setting}", **asked)


def named(name: str, extractor: str, text: str) -> NamedMetric:
    return NamedMetric(Metric(name, extractor), text, "metrics", "line of metrics")


def refused(check: Callable[..., object], *arguments: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        check(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        ("{}", "names nothing"),
        ("{epoch: 4000}", "epoch 4000 is none of digits/C's training"),
        ("{seed: 7}", "seed 7 is none of the experiment's"),
        ("{recipe: digits/G}", "no recipe in the experiment 'digits/G'"),
        ("{recipe: cifar10/C}", "trained on another data set"),
        ("{recipe: own/classes}", "network.classes of the guide own/classes is 10"),
        ("{epoch: 20, ema: fixed}", "would be guided by itself"),
        ("{epoch: 5, ema: 0.2}", "could only be mixed with an error"),
    ],
)
def test_a_guide_that_cannot_be_is_refused_with_its_line(tmp_path: Path, guide: str, words: str) -> None:
    (tmp_path / "classes.yaml").write_text("extends: digits/C\nnetwork: {classes: 10}\n")
    (tmp_path / "small.yaml").write_text(f"extends: digits/C\nname: digits/C\nsample:\n  guidance:\n    weight: 2\n    guide: {guide}\n")
    text = "name: guided\nrecipes: [small.yaml, digits/E, cifar10/C, classes.yaml]\nepochs: [20]\nmetrics: [fd_filters]\nprobe: false\n"
    (tmp_path / "guided.yaml").write_text(f"{text}sample: {{count: 100}}\n")
    error = refused(load_experiment, tmp_path / "guided.yaml")
    assert words in str(error)
    assert "small.yaml, line 6" in error.where


def test_a_good_experiment_passes_every_check(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(
        "name: good\nrecipes: [digits/C, digits/E]\nepochs: [10, 20]\nmetrics: [fd]\nsample: {count: 100}\nsweep: {sample.steps: [8, 18]}\n"
    )
    assert len(load_experiment(tmp_path / "good.yaml").recipes) == 4
    asked = {"epochs": (10,), "averages": (("fixed", "sample"),), "named_metrics": (named("kid", "filters", "kid_filters"),)}
    whole = request("digits/C", {**IMAGES, "network.classes": 2}, **asked, metrics=(Metric("kid", "filters"),), probe=True, survey=SURVEY)
    for check in (checks.check_recipe, checks.check_request, checks.check_data):
        check(whole)


@pytest.mark.parametrize(
    ("changes", "setting", "words"),
    [
        ({"network.image_channels": 3}, "network.image_channels", "network.image_channels is 3; digits has 1."),
        ({"network.resolution": 16}, "network.resolution", "network.resolution is 16; digits has 8."),
        ({"network.classes": 3}, "network.classes", "network.classes is 3; digits has 10."),
    ],
)
def test_a_network_of_other_images_than_the_data_has_is_refused(changes: dict[str, Any], setting: str, words: str) -> None:
    error = refused(checks.network_fits_data, request("digits/C", changes | {"network.attention_resolutions": []}))
    assert (error.what, error.where) == (words, f"line of {setting}")


def test_a_batch_of_more_images_than_there_are_is_refused() -> None:
    error = refused(checks.batch_fits_data, request("digits/C", {"training.batch": 1439}))
    assert (error.what, error.where) == ("training.batch is 1,439; digits has 1,438 images for training.", "line of training.batch")


@pytest.mark.parametrize(
    ("epochs", "changes", "words"),
    [
        ((10, 41), {}, "Epoch 41 is beyond the end of digits/C's training, which has 40 epochs."),
        ((30, 9), STARTED, "Epoch 9 is before the checkpoint that digits/C starts from"),
    ],
)
def test_an_epoch_that_training_does_not_have_is_refused(epochs: tuple[int, ...], changes: dict[str, Any], words: str) -> None:
    error = refused(checks.epochs_exist, request("digits/C", changes, epochs=epochs))
    assert error.what.startswith(words)
    assert error.where == "line of epochs.1"


def test_more_snapshots_than_anybody_looks_at_are_refused_unless_they_are_named() -> None:
    many = request("digits/C", {"training.epochs": 20_000}, epochs=tuple(range(1, 10_002)))
    checks.epochs_exist(many)
    error = refused(checks.epochs_exist, replace(many, epochs_by_default=True))
    assert error.what == "digits/C would have 10,001 snapshots, and each is looked at."
    assert error.where == "line of epochs"


def test_an_average_that_can_only_be_mixed_badly_is_refused() -> None:
    error = refused(checks.averages_suffice, request(epochs=(20, 10), averages=(("0.020", "sample"),)))
    assert error.what.startswith("An average of relative width 0.020 at epoch 10 of digits/C could only be mixed with an error of")
    assert error.where == "line of sample.ema"


def test_an_average_at_the_epoch_of_the_checkpoint_is_refused() -> None:
    error = refused(checks.averages_suffice, request("digits/C", STARTED, epochs=(10,), averages=(("0.050", "probe"),)))
    assert error.what == "The checkpoint that digits/C starts from has no EMA 0.050."
    assert error.where == "line of probe.ema"


def test_a_block_that_the_network_does_not_have_is_refused() -> None:
    error = refused(checks.blocks_exist, request("digits/C", {"probe.blocks": ["out_1", "out_9"]}, probe=True))
    assert (error.what, error.where) == ("The network of digits/C has no decoder block out_9.", "line of probe.blocks")


def test_too_few_samples_for_a_metric_are_refused() -> None:
    error = refused(checks.samples_suffice, request("digits/C", {"sample.count": 64}, named_metrics=(named("fd", "digits", "fd"),)))
    assert error.what.startswith("64 samples are too few for 'fd', which needs at least 65")
    assert error.where == "line of sample.count"


CONDITIONAL = {"network.classes": 10, "sample.count": 1500}
BY_CLASS = (named("fd_by_class", "digits", "fd_by_class"),)


def test_a_metric_by_class_of_samples_without_classes_is_refused() -> None:
    error = refused(checks.classes_suffice, request("digits/C", {"sample.count": 1500}, named_metrics=BY_CLASS))
    assert "digits/C is unconditional: its samples have no class" in error.what
    assert error.where == "line of metrics"


def test_a_metric_by_class_needs_enough_samples_in_every_class() -> None:
    checks.classes_suffice(request("digits/C", CONDITIONAL, named_metrics=BY_CLASS))
    error = refused(checks.classes_suffice, request("digits/C", CONDITIONAL | {"sample.count": 1000}, named_metrics=BY_CLASS))
    assert error.what.startswith("1000 samples are 100 in each of 10 classes, too few for 'fd_by_class', which needs 65 in every class")
    assert error.where == "line of sample.count"
    enough = int(error.do_next.split(" or more")[0].rpartition(" ")[2])
    checks.classes_suffice(request("digits/C", CONDITIONAL | {"sample.count": enough}, named_metrics=BY_CLASS))
    error = refused(checks.classes_suffice, request("digits/C", CONDITIONAL | {"sample.count": enough - 20}, named_metrics=BY_CLASS))


def test_a_metric_by_class_needs_enough_training_images_in_every_class() -> None:
    fid = (named("fd_by_class", "inception", "fd_by_class_inception"),)
    error = refused(checks.classes_suffice, request("cifar100/C", {"network.classes": 100, "sample.count": 300_000}, named_metrics=fid))
    assert error.what.startswith("A class of cifar100/C's data has 500 images for training, and")
    few = Survey([ClassCount("cats", 50, 9), ClassCount("dogs", 1000, 200)], revised=False)
    asked = request("digits/C", {**IMAGES, "network.classes": 2}, metrics=(Metric("fd_by_class", "filters"),), survey=few)
    error = refused(checks.each_class_suffices, asked)
    assert error.what == "A class of digits/C's data has 50 images for training, and 'fd_by_class_filters' needs 55 in every class."


def test_too_few_images_of_a_published_data_set_for_a_metric_are_refused() -> None:
    fid = (named("fid", "inception", "fid"),)
    error = refused(checks.samples_suffice, request("digits/C", {"sample.count": 3000}, named_metrics=fid))
    assert error.what == "digits has 1438 images for training, and 'fid' needs at least 2049 to compare with."
    assert error.where == "line of metrics"


def test_a_metric_of_features_that_imported_statistics_lack_is_refused() -> None:
    asked = (named("kid", "inception", "kid"),)
    error = refused(checks.reference_has_features, request("cifar10/C", {"reference": THEIRS}, named_metrics=asked))
    assert error.what == "'kid' needs the training images' own features, which imported statistics do not hold."
    assert error.where == "line of metrics"


def test_imported_statistics_that_no_metric_reads_are_refused() -> None:
    asked = (named("fd", "dinov2", "fd_dinov2"),)
    error = refused(checks.reference_is_used, request("cifar10/C", {"reference": THEIRS}, named_metrics=asked))
    assert error.what == "The imported reference of cifar10/C is in Inception features, in which no distance is asked for."
    assert error.where == "line of metrics"


def test_folders_of_too_few_images_for_a_metric_are_refused() -> None:
    few = Survey([ClassCount("cats", 500, 100), ClassCount("dogs", 499, 100)], revised=False)
    error = refused(checks.images_suffice, request("digits/C", IMAGES, metrics=(Metric("kid", "filters"),), survey=few))
    assert error.what == "The data of digits/C have 999 images for training, and 'kid_filters' needs at least 1000."
    assert error.where == "line of data.source (data.source: cats/)"


def test_a_network_of_other_classes_than_the_folders_is_refused() -> None:
    error = refused(checks.classes_fit, request("digits/C", {**IMAGES, "network.classes": 10}, survey=SURVEY))
    assert (error.what, error.where) == ("network.classes of digits/C is 10; the data set has 2 classes.", "line of network.classes")


def test_imported_statistics_of_another_count_than_the_folders_are_refused() -> None:
    reference = {"reference": {**THEIRS, "resolution": 8, "count": 2001}}
    error = refused(checks.reference_is_of_data, request("digits/C", IMAGES | reference, survey=SURVEY))
    assert error.what == "The imported statistics are of 2001 images, and the data have 2000 for training."
    assert error.where == "line of reference.count"


@pytest.mark.parametrize(
    ("changes", "survey", "words", "line"),
    [
        (IMAGES, Survey([ClassCount("cats", 10, 0)], revised=False), "The probe needs test images", "data.source (data.source: cats/)"),
        (IMAGES, Survey([ClassCount("cats", 0, 1)], revised=False), "The probe needs 1 training image", "data.source (data.source: cats/)"),
        ({"data.test_share": 0.0}, None, "The probe needs test images", "data.test_share"),
    ],
)
def test_a_probe_without_images_is_refused(changes: dict[str, Any], survey: Survey | None, words: str, line: str) -> None:
    error = refused(checks.probe_has_images, request("digits/C", changes, probe=True, survey=survey))
    assert error.what.startswith(words)
    assert error.where == f"line of {line}"


@pytest.mark.parametrize(
    ("settings", "words", "line"),
    [
        (["network.dropout"], "'network.dropout' stands in `overrides` too.", 4),
        (["training.lr"], "0.1 stands more than once.", 5),
        (["sample.precision", "probe.precision"], "'sample.precision' and 'probe.precision' would both be called precision", 6),
        (["sample.batch"], "'sample.batch' cannot be swept, since it decides no result by itself.", 8),
        (["sample.ema"], "'sample.ema' cannot be swept, since it decides no result by itself.", 9),
        (["training.rl"], "There is no setting to sweep 'training.rl'. Did you mean 'training.lr'?", 10),
    ],
)
def test_a_sweep_that_names_could_not_tell_apart_or_that_changes_nothing_is_refused(settings: list[str], words: str, line: int) -> None:
    document: Document = parse(SWEEP, "e.yaml")
    swept = {setting: document.values["sweep"][setting] for setting in settings}
    error = refused(checks.check_sweep, document, swept, {"network.dropout": "overrides"})
    assert error.what.startswith(words)
    assert error.where == f"e.yaml, line {line}"


def test_two_recipes_of_one_name_are_refused() -> None:
    document = parse("name: x\nrecipes: [a.yaml, b.yaml]\n", "e.yaml")
    error = refused(checks.check_names, document, ["own/a", "own/a"])
    assert (error.what, error.where) == ("Two recipes have the same name: own/a.", "e.yaml, line 2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fdi", "There is no metric 'fdi'. Did you mean 'fd'?"),
        ("is_digits", "Inception score is defined in Inception's features"),
        ("kim_metrics.brightness", "There is no metric 'kim_metrics.brightness'. Did you mean 'kim_metrics:brightness', of own code?"),
        ("fd.dinov2", "There is no metric 'fd.dinov2'. Known here: fid, fd,"),
    ],
)
def test_a_metric_that_does_not_exist_is_refused(text: str, words: str) -> None:
    error = refused(checks.named_metric, text, "digits", "e.yaml, line 3")
    assert error.what.startswith(words)
    assert error.where == "e.yaml, line 3"


@pytest.mark.parametrize(
    ("recipe", "changes", "check", "words", "line"),
    [
        ("digits/E", {"training.optimizer": "adamw"}, checks.decay_has_effect, "forced weight normalisation undoes it", "weight_decay"),
        ("digits/C", {**STARTED, "training.optimizer": "muon"}, checks.checkpoint_has_moments, "holds Adam's moments", "optimizer"),
    ],
)
def test_an_optimizer_that_makes_no_sense_is_refused(
    recipe: str, changes: dict[str, Any], check: Callable[..., object], words: str, line: str
) -> None:
    error = refused(check, request(recipe, changes))
    assert words in error.what
    assert error.where == f"line of training.{line}"
    check(request(recipe, {**changes, "training.optimizer": "adam"}))
