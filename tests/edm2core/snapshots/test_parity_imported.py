"""Trainings that go on from a checkpoint of FutureXiang/edm2: tests/data/seed_E.pth is what its training script saved.

The batches are the reference's own, given again after the checkpoint; tolerances are those of test_parity.py.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from edm2core.config import Recipe, load_recipe
from edm2core.config.settings import NetworkSettings, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.batches import Batch
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.layers import normalize_weights_
from edm2core.diffusion.loss import Objective
from edm2core.diffusion.sampler import draw
from edm2core.diffusion.trainer import Trainer
from edm2core.diffusion.training_state import averaged_weights
from edm2core.errors import InputError
from edm2core.snapshots.checkpoints import fx_names, read_fx
from tests.fx import load_fx, load_fx_tensors

DATA = Path(__file__).parents[2] / "data"
LOSS, THREE_STEPS = 5e-6, 1e-4
SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 2, "resolution": 16, "attention_resolutions": (8,), "dropout": 0.0}
IMAGES = torch.zeros(12, 3, 16, 16, dtype=torch.uint8)  # only counted: three batches of four are an epoch


def recipe_of(config: str) -> Recipe:
    recipe = load_recipe(f"cifar10/{config}", {"training.batch": 4, "training.precision": "fp32", "training.warmup_epochs": 0})
    training = recipe.training.model_copy(update={"t_ref_epochs": None, "lr": float(reference(config)[1]["adam_lr"])})
    network = NetworkSettings(**{**recipe.network.model_dump(), **SMALL})
    return recipe.model_copy(update={"network": network, "training": training})


def reference(config: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(DATA / f"seed_{config}.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


class Given(Trainer):
    """Trains on the reference's three batches, over and over."""

    tensors: dict[str, Tensor]

    def given_batch(self, step: int) -> Batch:
        x, sigma, noise = (self.tensors[f"train/{name}"][step % 3] for name in ("x", "sigma", "noise"))
        return Batch(self.pixel_scale.to_network(x), sigma.flatten(), noise, None, None)

    def train(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            self.step()
            losses.append(self.close_window()["loss"])
        return losses


def given(config: str) -> Given:
    recipe, tensors = recipe_of(config), reference(config)[0]
    trainer = Given(
        TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0), PixelScale(), IMAGES
    )
    trainer.tensors = tensors
    trainer.batches.after = trainer.given_batch  # type: ignore[method-assign]
    return trainer


def trained(config: str) -> Given:
    """After the reference's three steps."""
    trainer = given(config)
    load_fx_tensors(trainer.denoiser, {k.removeprefix("init/"): v for k, v in trainer.tensors.items() if k.startswith("init/")})
    for average in trainer.averages.values():
        average.load(list(trainer.parameters.values()), 0)
    assert trainer.train(3) == pytest.approx(trainer.tensors["train/loss"].tolist(), rel=LOSS)
    return trainer


@pytest.mark.parametrize("config", ["G", *(pytest.param(config, marks=pytest.mark.slow) for config in "CE")])
@pytest.mark.parametrize("backend", [pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor")])
def test_a_compiled_training_takes_the_references_steps(config: str, backend: str) -> None:
    trainer = given(config)
    load_fx_tensors(trainer.denoiser, {k.removeprefix("init/"): v for k, v in trainer.tensors.items() if k.startswith("init/")})
    trainer.applied.refresh()
    outcome = trainer.compile(backend=backend)
    assert outcome.adopted, outcome.words
    assert trainer.train(3) == pytest.approx(trainer.tensors["train/loss"].tolist(), rel=LOSS)


def fx_order(names: list[str], config: str) -> list[str]:
    """As the reference's modules hold them, which the names of its real networks tell: block by block, in each in the same order."""
    real = list(json.loads((DATA / "seed_state_dicts.json").read_text())[f"cifar10/{config}"]["shapes"])

    def place(name: str) -> tuple[int, int]:
        block = re.split(r"(?<=\.)(?:res|attn)\.", name)[0]
        return next(i for i, n in enumerate(real) if n.startswith(block)), next(
            i for i, n in enumerate(real) if n.endswith(name.removeprefix(block))
        )

    return sorted(names, key=place)


def checkpoint(trainer: Given, config: str, path: Path) -> Path:
    """What the reference would save of this training."""
    denoiser, names = trainer.denoiser, fx_names(trainer.denoiser)
    ours = {theirs: name for name, theirs in names.items()}
    order = fx_order(list(ours), config)
    online = {name: denoiser.state_dict()[ours[name]] for name in order}
    average = averaged_weights(trainer.state(), "fixed")
    states: dict[int, Any] = {
        position: trainer.optimizer.state[trainer.parameters[ours[name]]]
        for position, name in enumerate(order)
        if ours[name] in trainer.parameters
    }
    ema = {f"online_model.{name}": tensor for name, tensor in online.items()} | {f"ema_model.{n}": average[ours[n]] for n in order}
    torch.save(
        {
            "MODEL": {f"module.{name}": tensor for name, tensor in online.items()},
            "EMA": {"initted": torch.tensor(True), "step": torch.tensor(trainer.averages["fixed"].count), **ema},
            "opt": {"state": states, "param_groups": [{"lr": 0.02, "params": list(range(len(order)))}]},
        },
        path,
    )
    return path


def imported(path: Path, config: str, epoch: int | None = 1) -> Given:
    trainer, found = given(config), read_fx(path, recipe_of(config))
    assert found.weights is not None
    assert found.adam is not None
    weights = {f"weights/{name}": tensor for name, tensor in found.weights.items()}
    moments = {f"adam/{moment}/{name}": tensor for name, state in found.adam.items() for moment, tensor in state.items()}
    trainer.start({**weights, **moments}, found.ema, epoch, found.updates)
    return trainer


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert (ours - theirs).abs().max().item() <= tolerance * theirs.abs().max().item()


def test_a_real_checkpoint_gives_the_references_numbers() -> None:
    tensors, denoiser = reference("E")[0], load_fx(DATA / "seed_E.pth", recipe_of("E"))
    noised = denoiser.pixel_scale.to_network(tensors["eval/x"]) + tensors["eval/sigma"] * tensors["eval/noise"]
    with torch.no_grad():
        assert_same(denoiser(noised, tensors["eval/sigma"]), tensors["eval/denoised"], 1e-5)
        assert_same(denoiser.log_variance(tensors["eval/sigma"]), tensors["eval/log_variance"], 1e-5)
        for name, feature in denoiser.features(noised, tensors["eval/sigma"]).items():
            assert_same(feature, tensors[f"eval/feature/{name}"], 1e-5)
    assert_same(draw(denoiser, tensors["sample/latents"], 6), tensors["sample/images"], 1e-5)


def continued_by_hand() -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
    """Three steps from the file alone, with its own numbering of Adam's state: losses, weights and their average by our names."""
    file = torch.load(DATA / "seed_E.pth", weights_only=True)
    recipe, tensors = recipe_of("E"), reference("E")[0]
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    weights = {name.removeprefix("module."): tensor for name, tensor in file["MODEL"].items()}
    load_fx_tensors(denoiser, weights)
    ours, parameters = {theirs: name for name, theirs in fx_names(denoiser).items()}, dict(denoiser.named_parameters())
    fixed = {name: torch.nn.Parameter(tensor, requires_grad=False) for name, tensor in weights.items()}
    adam = torch.optim.Adam([parameters.get(ours[name], fixed[name]) for name in weights], lr=0.02)
    adam.load_state_dict(file["opt"])
    average = {ours[name]: file["EMA"][f"ema_model.{name}"].clone() for name in weights if ours[name] in parameters}
    losses = []
    for number in range(3):
        x, sigma, noise = (tensors[f"train/{name}"][number] for name in ("x", "sigma", "noise"))
        normalize_weights_(denoiser)
        loss = Objective(denoiser)(denoiser.pixel_scale.to_network(x), sigma, noise).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        beta = 1 - (int(file["EMA"]["step"]) + number + 1) ** (-2 / 3)
        average = {name: beta * mean + (1 - beta) * parameters[name].detach() for name, mean in average.items()}
    return losses, {name: parameter.detach() for name, parameter in parameters.items()}, average


def test_the_next_steps_are_those_of_the_files_own_optimiser() -> None:
    losses, weights, average = continued_by_hand()
    trainer = imported(DATA / "seed_E.pth", "E")
    assert trainer.train(3) == pytest.approx(losses, rel=LOSS)
    for (name, parameter), mean in zip(trainer.parameters.items(), trainer.averages["fixed"].weights, strict=True):
        assert_same(parameter, weights[name], THREE_STEPS)
        assert_same(mean, average[name], THREE_STEPS)


def test_the_next_steps_are_those_of_an_uninterrupted_training() -> None:
    whole, trainer = trained("E"), imported(DATA / "seed_E.pth", "E")
    assert trainer.train(3) == pytest.approx(whole.train(3), rel=5 * LOSS)
    for name, parameter in trainer.parameters.items():
        assert_same(parameter, whole.parameters[name], 5 * THREE_STEPS)


@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_each_configs_training_goes_on_from_its_file_with_the_same_bits(config: str, tmp_path: Path) -> None:
    whole = trained(config)
    trainer = imported(checkpoint(whole, config, tmp_path / "model_0.pth"), config)
    assert (trainer.steps, trainer.epoch) == (3, 1)
    assert trainer.train(2) == whole.train(2)
    for name, parameter in trainer.parameters.items():
        assert torch.equal(parameter, whole.parameters[name])
    assert all(torch.equal(a, b) for a, b in zip(trainer.averages["fixed"].weights, whole.averages["fixed"].weights, strict=True))


def test_the_fixed_parameters_have_the_places_that_the_facts_name() -> None:
    for config, count in (("C", 118), ("E", 118), ("G", 146)):
        names = list(json.loads((DATA / "seed_state_dicts.json").read_text())[f"cifar10/{config}"]["shapes"])
        assert len(names) == count
        assert [place for place, name in enumerate(names) if "fourier" in name] == [1, 2, count - 3, count - 2]


def test_power_function_averages_begin_as_the_fixed_one(tmp_path: Path) -> None:
    trainer = imported(DATA / "seed_E.pth", "E", epoch=50)
    fixed = trainer.averages["fixed"].weights
    for width in ("0.050", "0.100"):
        average = trainer.averages[width]
        assert average.count == 50 * len(IMAGES)
        assert all(torch.equal(a, b) for a, b in zip(average.weights, fixed, strict=True))


def test_the_epoch_decides_where_training_goes_on_and_the_steps_where_it_is_not_known() -> None:
    known, unknown = imported(DATA / "seed_E.pth", "E", epoch=50), imported(DATA / "seed_E.pth", "E", epoch=None)
    assert (known.epoch, known.averages["fixed"].count) == (50, 3)
    assert (unknown.steps, unknown.averages["fixed"].count) == (3, 3)
    trainer = given("E")
    ema = {name: parameter.detach() for name, parameter in trainer.parameters.items()}
    trainer.start({}, ema, 2, None)
    assert (trainer.steps, trainer.averages["fixed"].count) == (6, 6)
    with pytest.raises(InputError, match="how long"):
        given("E").start({}, ema, None, None)
