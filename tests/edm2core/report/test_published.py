"""A published value stands beside ours as the same only under the same protocol; else every known difference is named."""

from typing import Any

import pytest

from edm2core.config import load_recipe, recipe_names
from edm2core.report.published import beside, others

FID: dict[str, Any] = {"steps": 18, "eta": 0.0, "samples": 50_000, "reference": 50_000, "extractor": "inception", "ema": "fixed"}
PROBE: dict[str, Any] = {"t": "4", "block": "out_6", "epochs": 15, "batch": 512, "lr": 4e-3, "flip": True, "ema": "fixed"}
PROBE |= {"crop": 0, "features": "fresh"}


def test_the_same_protocol_has_no_differences_and_says_what_is_unknown() -> None:
    published = beside(load_recipe("cifar10/E"), "fid", 2000, FID)
    assert published is not None
    assert (published.value, published.epoch, published.differs) == (2.72, 2000, ())
    assert "FID tool" in published.not_stated


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"samples": 2000}, "samples 2000 instead of 50000"),
        ({"steps": 32}, "sampler steps 32 instead of 18"),
        ({"ema": "0.050"}, "EMA 0.050 instead of fixed"),
    ],
)
def test_a_difference_in_sampling_is_named(changed: dict[str, Any], words: str) -> None:
    published = beside(load_recipe("cifar100/C"), "fid", 1000, FID | changed)
    assert published is not None
    assert published.differs == (words,)


def test_a_difference_in_the_recipe_is_named() -> None:
    published = beside(load_recipe("cifar10/C", {"network.dropout": 0.0}), "probe_accuracy", 500, PROBE)
    assert published is not None
    assert published.differs == ("network.dropout 0.0 instead of 0.13",)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"crop": 4}, "probe crops 4 instead of 0"),
        ({"features": "cached (2 draws)"}, "features cached (2 draws) instead of fresh"),
        ({"batch": 128}, "probe batch 128 instead of 512"),
        ({"t": "3,4,5", "block": "all"}, "noise level t 3,4,5 instead of 4"),
    ],
)
def test_a_difference_in_the_probe_is_named(changed: dict[str, Any], words: str) -> None:
    published = beside(load_recipe("cifar10/C"), "probe_accuracy", 500, PROBE | changed)
    assert published is not None
    assert words in published.differs


def test_other_epochs_are_named() -> None:
    published = beside(load_recipe("cifar10/E"), "fid", 1600, FID)
    assert published is not None
    assert published.differs == ("1600 epochs instead of 2000",)


def test_a_recipe_nobody_published_stands_beside_its_nearest_with_the_differences() -> None:
    published = beside(load_recipe("cifar10/G"), "fid", 2000, FID)
    assert published is not None
    assert published.recipe == "cifar10/E"
    assert published.differs == ("network.magnitude_preserving true instead of false", "network.norm pixel instead of group")


def test_an_imported_reference_is_named_as_a_difference() -> None:
    published = beside(load_recipe("cifar10/E"), "fid_imported", 2000, FID | {"origin": "a page"})
    assert published is not None
    assert published.differs == ("imported reference statistics (a page)",)


def test_nothing_is_published_for_other_data_or_features() -> None:
    assert beside(load_recipe("digits/C"), "probe_accuracy", 500, PROBE) is None
    assert beside(load_recipe("cifar10/C"), "fd_digits", 500, FID) is None
    assert others("digits") == []


def test_an_own_recipe_on_the_same_data_is_compared_too() -> None:
    own = load_recipe("cifar100/E").model_copy(update={"name": "own/mine"})
    published = beside(own, "fid", 2000, FID)
    assert published is not None
    assert (published.value, published.differs) == (4.33, ())


@pytest.mark.parametrize("name", [name for name in recipe_names() if name[-1] in "CE" and not name.startswith(("digits", "paper"))])
@pytest.mark.parametrize("metric", ["fid", "probe_accuracy"])
def test_each_published_recipe_has_its_own_values(name: str, metric: str) -> None:
    published = beside(load_recipe(name), metric, 1, {})
    assert published is not None
    assert (published.recipe, published.differs) == (name, (f"1 epochs instead of {published.epoch}",))
