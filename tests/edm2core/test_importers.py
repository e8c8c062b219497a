from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edm2core.config import Recipe, load_recipe
from edm2core.config.settings import NetworkSettings
from edm2core.diffusion import Denoiser
from edm2core.errors import InputError
from edm2core.importers import fx_names, load_fx
from edm2core.nets import build_network


def recipe_of(config: str) -> Recipe:
    recipe = load_recipe(f"cifar10/{config}")
    small = {"channels": 32, "multipliers": (1, 2), "blocks": 2, "resolution": 16, "attention_resolutions": (8,), "dropout": 0.0}
    return recipe.model_copy(update={"network": NetworkSettings(**{**recipe.network.model_dump(), **small})})


def seed_state(denoiser: Denoiser) -> dict[str, Tensor]:
    return {theirs: denoiser.state_dict()[ours] for ours, theirs in fx_names(denoiser).items()}


def checkpoint(path: Path, online: Denoiser, average: Denoiser) -> Path:
    """A file in the form that the reference's training script writes."""
    model, ema = seed_state(online), seed_state(average)
    torch.save(
        {
            "MODEL": {f"module.{name}": tensor for name, tensor in model.items()},
            "EMA": {
                "initted": torch.tensor(True),
                "step": torch.tensor(3),
                **{f"online_model.{name}": tensor for name, tensor in model.items()},
                **{f"ema_model.{name}": tensor for name, tensor in ema.items()},
            },
            "opt": {"state": {}, "param_groups": []},
        },
        path,
    )
    return path


@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_both_sets_of_weights_of_a_checkpoint_are_read(tmp_path: Path, config: str) -> None:
    recipe = recipe_of(config)
    online, average = (Denoiser(build_network(recipe.network), recipe.diffusion) for _ in range(2))
    path = checkpoint(tmp_path / "model_2.pth", online, average)
    for weights, expected in (("EMA", average), ("MODEL", online)):
        loaded = load_fx(path, recipe, weights)  # type: ignore[arg-type]
        assert not loaded.training
        assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in expected.state_dict().items())


def test_every_name_that_does_not_fit_is_reported_at_once(tmp_path: Path) -> None:
    recipe = recipe_of("E")
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    path = checkpoint(tmp_path / "model_2.pth", denoiser, denoiser)
    content = torch.load(path, weights_only=True)
    ema = content["EMA"]
    del ema["ema_model.nn_model.down.0.res.conv1.weight"]
    del ema["ema_model.nn_model.middle2.res.linear.weight"]
    ema["ema_model.nn_model.surprise"] = torch.zeros(1)
    ema["ema_model.nn_model.image_proj.weight"] = torch.zeros(32, 2, 3, 3)
    torch.save(content, path)
    with pytest.raises(InputError) as raised:
        load_fx(path, recipe)
    message = str(raised.value)
    for part in (
        "missing: nn_model.down.0.res.conv1.weight",
        "missing: nn_model.middle2.res.linear.weight",
        "nn_model.surprise",
        "nn_model.image_proj.weight has shape [32, 2, 3, 3], the recipe's network [32, 4, 3, 3]",
        str(path),
    ):
        assert part in message


def test_another_configs_checkpoint_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of("G")
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    with pytest.raises(InputError, match="missing"):
        load_fx(checkpoint(tmp_path / "model_2.pth", denoiser, denoiser), recipe_of("C"))


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_what_is_no_checkpoint_is_refused_and_nothing_in_it_is_executed(tmp_path: Path) -> None:
    recipe, path, victim = recipe_of("C"), tmp_path / "model_1.pth", tmp_path / "executed"
    contents: list[object] = [{"EMA": Attack(victim)}, {"weights": 1}, [1, 2], {"EMA": 3}]
    for content in contents:
        torch.save(content, path)
        with pytest.raises(InputError, match="not a checkpoint"):
            load_fx(path, recipe)
    for data in (b"", b"no zip", b"PK\x03\x04 cut"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a checkpoint"):
            load_fx(path, recipe)
    with pytest.raises(InputError, match=r"absent\.pth"):
        load_fx(tmp_path / "absent.pth", recipe)
    assert not victim.exists()
