"""The paper's ladder: what each rung changes, what stands at its ends, and how it departs from FutureXiang/edm2's recipes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from edm2core.config import load_recipe, recipe_names
from edm2core.config.describe import DESCRIPTIONS, differences, fields_of
from edm2core.config.recipes import rung_names
from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.unet import Block

DATASETS = ("cifar10", "cifar100", "tinyimagenet", "digits")
RUNGS = "ABCDEFG"
PAIRS = [f"{below}{above}" for below, above in pairwise(RUNGS)]

CHANGES: dict[str, dict[str, tuple[Any, Any]]] = {
    "AB": {
        "network.attention_resolutions": ((32, 16, 8), (16, 8)),
        "diffusion.p_mean": (-1.2, -0.4),
        "diffusion.p_std": (1.2, 1.0),
        "diffusion.log_variance_features": (0, 128),
        "training.batch": (1024, 512),
        "training.lr": (1e-4, 2e-4),
        "training.betas": ((0.9, 0.999), (0.9, 0.99)),
        "training.ema_beta": (0.9993, None),
        "sample.ema": (("fixed",), ("0.050", "0.100")),
        "probe.ema": ("fixed", "0.100"),
    },
    "BC": {
        "network.biases": (True, False),
        "network.init": ("adm", "he"),
        "network.norm": ("group_affine", "group_rms"),
        "network.conditioning": ("scale_and_shift", "scale"),
        "network.attention_norm": ("group", "pixel"),
        "network.pixel_epsilon": ("inside", "outside"),
        "network.noise_features": ("positional", "fourier"),
    },
    "CD": {"network.weights": ("plain", "normalized"), "network.init": ("he", None), "training.lr": (2e-4, 1e-2)},
    "DE": {"network.weights": ("normalized", "forced"), "training.t_ref_epochs": (None, 400.0)},
    "EF": {"network.norm": ("group_rms", "pixel"), "network.middle": ("encoder", "decoder")},
    "FG": {
        "network.magnitude_preserving": (False, True),
        "network.embedding_gain": (1.0, 0.0),
        "network.dropout": (0.1, 0.0),
    },
}
SCALE: dict[str, dict[str, tuple[Any, Any]]] = {  # where a data set's size asks for other numbers in the same settings
    "tinyimagenet/AB": {"training.batch": (384, 192)},
    "digits/AB": {
        "network.attention_resolutions": ((8, 4), (4,)),
        "training.batch": (128, 64),
        "training.lr": (1e-3, 2e-3),
        "training.ema_beta": (0.995, None),
    },
    "digits/CD": {"training.lr": (2e-3, 1e-2)},
    "digits/DE": {"training.t_ref_epochs": (None, 20.0)},
}

# facts: where FutureXiang/edm2 differs from the paper
ALWAYS = {
    "data.standardize": (False, True),
    "network.attention_resolutions": ((16,), (16, 8)),
    "network.attention_head_channels": (None, 64),
    "network.embedding_width": ("fourfold", "widest"),
    "network.pixel_epsilon": ("inside", "outside"),
    "diffusion.p_mean": (-1.2, -0.4),
    "diffusion.p_std": (1.2, 1.0),
    "diffusion.log_variance_features": (256, 128),
    "training.lr_changes": ("every_epoch", "every_step"),
    "training.loss_reduction": ("mean", "sum"),
    "training.betas": ((0.9, 0.999), (0.9, 0.99)),
    "training.ema_beta": (0.9993, None),
    "sample.steps": (18, 32),
    "sample.clip": (True, False),
    "sample.state": ("fp64", "fp32"),
    "sample.ema": (("fixed",), ("0.050", "0.100")),
    "probe.ema": ("fixed", "0.100"),
}
DEPARTURES = {
    "C": {
        "network.init": (None, "he"),
        "network.norm": ("group", "group_rms"),
        "network.dropout": (0.13, 0.1),
        "network.clip": (None, 256.0),
        "training.epochs": (1000, 2000),
        "training.lr": (4e-4, 2e-4),
    },
    "E": {"network.norm": ("group", "group_rms"), "network.dropout": (0.13, 0.1), "training.lr": (2e-2, 1e-2)},
    "G": {
        "network.embedding_gain": (1.0, 0.0),
        "network.middle": ("encoder", "decoder"),
        "network.dropout": (0.13, 0.0),
        "training.lr": (2e-2, 1e-2),
    },
}

PARAMETERS = {"A": 295.9, "B": 291.8, "C": 277.8, "D": 277.8, "E": 277.8, "F": 280.2, "G": 280.2}  # millions (EDM2, table 1)


def changes(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """Every setting in which two recipes differ, with its values."""
    recipes = [load_recipe(name) for name in (one, other)]
    found = {}
    for section in ("data", "network", "diffusion", "training", "sample", "probe"):
        a, b = (getattr(recipe, section) for recipe in recipes)
        found |= {f"{section}.{name}": (getattr(a, name), getattr(b, name)) for name in type(a).model_fields}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def paper_sized(rung: str, channels: int = 192) -> NetworkSettings:
    """The paper's network for ImageNet-512's latents."""
    ladder = load_recipe(f"paper/tinyimagenet/{rung}").network
    size = {"image_channels": 4, "channels": channels, "multipliers": (1, 2, 3, 4), "blocks": 4, "classes": 1000}
    return NetworkSettings(**{**ladder.model_dump(), **size})


def test_every_data_set_has_every_rung() -> None:
    assert rung_names() == [f"ladder/{rung}" for rung in RUNGS]
    assert {name for name in recipe_names() if name.startswith("paper/")} == {f"paper/{data}/{rung}" for data in DATASETS for rung in RUNGS}
    assert {load_recipe(f"paper/{data}/G").dataset for data in DATASETS} == set(DATASETS)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("data", DATASETS)
def test_a_rung_changes_what_the_paper_says_and_nothing_else(data: str, pair: str) -> None:
    expected = CHANGES[pair] | SCALE.get(f"{data}/{pair}", {})
    assert changes(f"paper/{data}/{pair[0]}", f"paper/{data}/{pair[1]}") == expected


@pytest.mark.parametrize("config", list(DEPARTURES))
def test_a_recipe_of_the_papers_undoes_every_departure(config: str) -> None:
    assert changes(f"cifar10/{config}", f"paper/cifar10/{config}") == ALWAYS | DEPARTURES[config]


def test_cifar_100_climbs_as_cifar_10_does() -> None:
    for rung in RUNGS:
        assert {name.split(".")[0] for name in changes(f"paper/cifar10/{rung}", f"paper/cifar100/{rung}")} == {"data"}


@pytest.mark.parametrize("rung", RUNGS)
def test_the_parameter_counts_at_the_papers_size_are_the_papers(rung: str) -> None:
    with torch.device("meta"):
        denoiser = Denoiser(build_network(paper_sized(rung)), load_recipe(f"paper/tinyimagenet/{rung}").diffusion)
    assert round(sum(parameter.numel() for parameter in denoiser.parameters()) / 1e6, 1) == PARAMETERS[rung]


@pytest.mark.parametrize("channels", [64, pytest.param(192, marks=pytest.mark.slow)])
def test_activations_of_g_at_the_papers_depth_start_with_unit_magnitude(channels: int) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(build_network(paper_sized("G", channels)), load_recipe("paper/tinyimagenet/G").diffusion).eval()
    magnitudes: dict[str, list[float]] = {}
    for name, module in denoiser.network.named_modules():
        if isinstance(module, Block) or name in ("embedding", "stem"):
            module.register_forward_hook(
                lambda _, inputs, y, name=name: magnitudes.update({name: y.flatten(1).square().mean(dim=1).sqrt().tolist()})
            )
    sigma = torch.tensor([0.05, 20.0])
    noised = 0.5 * torch.randn(2, 4, 64, 64) + sigma[:, None, None, None] * torch.randn(2, 4, 64, 64)
    with torch.no_grad():
        denoiser(noised, sigma, torch.tensor([3, 500]))
    assert len(magnitudes) == 2 + 15 + 2 + 19
    for of_both in magnitudes.values():
        assert of_both == pytest.approx([1, 1], abs=0.15)


def test_published_recipes_are_compared_in_words() -> None:
    """Every setting in which two of them differ has words of its own, and its values read differently."""
    bases = [(name, f"{name[:-1]}{config}") for name in recipe_names() if not name.endswith("-cond") for config in "CG"]
    for one, other in [
        *bases,
        *((f"{data}/G", f"paper/{data}/{rung}") for data in DATASETS for rung in RUNGS),
        ("digits/C", "tinyimagenet/G"),
    ]:
        for each in differences(load_recipe(one), load_recipe(other)):
            assert each.name in DESCRIPTIONS
            assert each.one != each.other


def test_words_are_of_settings_that_exist() -> None:
    recipe = load_recipe("cifar10/C")
    for name in DESCRIPTIONS:
        section, _, setting = name.partition(".")
        assert setting in fields_of(type(getattr(recipe, section)))


def test_every_departure_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "explanation" / "recipes.md").read_text()
    for setting in {*ALWAYS, *(name for departures in DEPARTURES.values() for name in departures), *CHANGES["BC"]} - {"training.epochs"}:
        assert f"`{setting}`" in text or f"`{setting.partition('.')[2]}`" in text, setting
