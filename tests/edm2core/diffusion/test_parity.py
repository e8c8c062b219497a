"""The same numbers as FutureXiang/edm2's code, on its tiny networks with random weights: tests/data/seed_*.safetensors.

Tolerances are float32 rounding: relative to the largest value, 5e-6 for a loss and 1e-4 for what comes after three Adam steps, whose
square roots and divisions magnify the rounding of small gradients. Noise levels: 1e-6, as the reference's schedule has float32 endpoints.
A GPU is allowed four times as much, since its kernels add in other orders than the reference's on a CPU did.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.diffusion.averages import FixedEma
from edm2core.diffusion.compiling import adopt
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import compute, pick_device
from edm2core.diffusion.folding import FoldedForTraining, prepare_for_inference
from edm2core.diffusion.layers import normalize_weights_
from edm2core.diffusion.loss import Objective
from edm2core.diffusion.noise_levels import karras, probe_sigma
from edm2core.diffusion.sampler import draw
from edm2core.snapshots.checkpoints import fx_names
from tests.fx import load_fx_tensors

DATA = Path(__file__).parents[2] / "data"
CONFIGS: dict[str, dict[str, Any]] = {
    "C": {"weights": "plain", "norm": "group", "magnitude_preserving": False, "clip": None},
    "E": {"weights": "forced", "norm": "group", "magnitude_preserving": False, "clip": 256.0},
    "G": {"weights": "forced", "norm": "pixel", "magnitude_preserving": True, "clip": 256.0},
}
LOSS, THREE_STEPS, SCHEDULE = 5e-6, 1e-4, 1e-6
CPU = torch.device("cpu")

# Every way to run the network must give the same numbers; a path returns what is called in place of the denoiser.
PATHS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "as loaded": lambda denoiser: denoiser,
    "prepared": lambda denoiser: prepare_for_inference(copy.deepcopy(denoiser), next(denoiser.parameters()).device),
}
GPU = pytest.mark.needs("gpu")
WAYS = [
    pytest.param((config, fast, device), marks=[GPU] * (device == "gpu"), id=f"{config} {'fast' if fast else 'plain'} {device}")
    for config in CONFIGS
    for fast in (False, True)
    for device in ("cpu", "gpu")
]


def settings_of(config: str, arguments: dict[str, Any]) -> NetworkSettings:
    """The network's settings from the reference implementation's arguments."""
    channels, side, _ = arguments["image_shape"]
    return NetworkSettings(
        resolution=side,
        image_channels=channels,
        channels=arguments["n_channels"],
        multipliers=tuple(arguments["ch_mults"]),
        blocks=arguments["n_blocks"],
        attention_resolutions=tuple(side >> level for level, attends in enumerate(arguments["is_attn"]) if attends),
        dropout=arguments["dropout"],
        **CONFIGS[config],
    )


@dataclass
class Trained:
    """A denoiser after the reference's three training steps."""

    tensors: dict[str, Tensor]
    losses: list[float]
    online: Denoiser
    average: Denoiser


def train(config: str, *, fast: bool, device: torch.device = CPU) -> Trained:
    """On the fast path as the trainer does it: channels_last, weights normalised once for all layers."""
    compute(tf32=False)
    with safe_open(DATA / f"seed_{config}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    denoiser = Denoiser(build_network(settings_of(config, json.loads(metadata["network"]))), DiffusionSettings()).train().to(device)
    initial = {name.removeprefix("init/"): tensor for name, tensor in tensors.items() if name.startswith("init/")}
    load_fx_tensors(denoiser, initial)
    if fast:
        denoiser.to(memory_format=torch.channels_last)
    folded = FoldedForTraining(denoiser)
    weights = list(denoiser.parameters())
    adam = torch.optim.Adam(weights, lr=float(metadata["adam_lr"]), fused=fast)
    ema = FixedEma(weights, float(metadata["ema_beta"]))
    losses = []
    for x, sigma, noise in zip(tensors["train/x"], tensors["train/sigma"], tensors["train/noise"], strict=True):
        adam.zero_grad()
        folded.module.zero_grad()
        folded.refresh() if fast else normalize_weights_(denoiser)
        loss = Objective(folded.module if fast else denoiser)(denoiser.pixel_scale.to_network(x), sigma, noise).mean()
        loss.backward()
        if fast:
            folded.pull_back()
        adam.step()
        ema.update(weights, batch=len(x))
        losses.append(loss.item())
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter, value in zip(average.parameters(), ema.weights, strict=True):
            parameter.copy_(value)
    return Trained(tensors, losses, denoiser, average)


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest) -> Trained:
    config, fast, device = request.param
    return train(config, fast=fast, device=pick_device() if device == "gpu" else CPU)


@pytest.fixture(params=list(PATHS))
def denoiser(request: pytest.FixtureRequest, trained: Trained) -> Denoiser:
    return PATHS[request.param](trained.average)


def noised(trained: Trained) -> Tensor:
    tensors = trained.tensors
    result: Tensor = trained.average.pixel_scale.to_network(tensors["eval/x"]) + tensors["eval/sigma"] * tensors["eval/noise"]
    return result


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= tolerance * rounding(theirs) * theirs.abs().max().item()


def rounding(tensor: Tensor) -> float:
    """How many times the rounding of a CPU is allowed where the tensor is."""
    return 4.0 if tensor.is_cuda else 1.0


def test_the_losses_of_three_training_steps(trained: Trained) -> None:
    theirs = trained.tensors["train/loss"]
    assert trained.losses == pytest.approx(theirs.tolist(), rel=LOSS * rounding(theirs))


def test_the_denoised_images_with_the_averaged_weights(trained: Trained, denoiser: Denoiser) -> None:
    assert_same(denoiser(noised(trained), trained.tensors["eval/sigma"]), trained.tensors["eval/denoised"], THREE_STEPS)


def test_the_log_variance(trained: Trained, denoiser: Denoiser) -> None:
    assert_same(denoiser.log_variance(trained.tensors["eval/sigma"]), trained.tensors["eval/log_variance"], THREE_STEPS)


def test_the_pooled_features_of_every_block(trained: Trained, denoiser: Denoiser) -> None:
    features = denoiser.features(noised(trained), trained.tensors["eval/sigma"])
    theirs = {name.removeprefix("eval/feature/"): value for name, value in trained.tensors.items() if name.startswith("eval/feature/")}
    assert features.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_same(features[name], value, THREE_STEPS)


def test_the_images_of_six_sampler_steps(trained: Trained, denoiser: Denoiser) -> None:
    images = draw(denoiser, trained.tensors["sample/latents"], 6)
    assert_same(images, trained.tensors["sample/images"], THREE_STEPS)


@pytest.mark.parametrize("trained", [way for way in WAYS if way.values[0][1]], indirect=True)
@pytest.mark.parametrize("backend", [pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor")])
def test_a_compiled_network_denoises_and_samples_the_same(trained: Trained, backend: str) -> None:
    tensors, fast = trained.tensors, PATHS["prepared"](trained.average)
    x = noised(trained)
    with torch.no_grad():
        outcome = adopt(fast.network, len(x), lambda: [fast(x, 0.5)], "fp32", backend=backend)
        assert outcome.adopted, outcome.words
        assert_same(fast(x, tensors["eval/sigma"]), tensors["eval/denoised"], THREE_STEPS)
        assert_same(draw(fast, tensors["sample/latents"], 6), tensors["sample/images"], THREE_STEPS)


def test_the_noise_schedules_and_the_levels_of_the_probe(trained: Trained) -> None:
    for steps in (6, 18):
        torch.testing.assert_close(karras(steps), trained.tensors[f"schedule/{steps}"].cpu(), rtol=SCHEDULE, atol=0)
    levels = [probe_sigma(t) for t in range(1, 19)]
    assert levels == pytest.approx(trained.tensors["probe/sigma_at_t_of_18"][1:].tolist(), rel=SCHEDULE)


def test_micro_batches_of_unequal_size_give_the_same_loss(trained: Trained) -> None:
    tensors, objective = trained.tensors, Objective(trained.average)
    x, sigma, noise = trained.average.pixel_scale.to_network(tensors["eval/x"]), tensors["eval/sigma"], tensors["eval/noise"]
    whole = objective(x, sigma, noise).mean()
    parts = torch.cat([objective(x[part], sigma[part], noise[part]) for part in (slice(0, 1), slice(1, 4))])
    assert parts.mean().item() == pytest.approx(whole.item(), rel=LOSS * rounding(whole))


@pytest.mark.parametrize("name", [f"{dataset}/{config}" for dataset in ("cifar10", "tinyimagenet") for config in CONFIGS])
def test_names_shapes_and_parameter_counts_at_real_size(name: str) -> None:
    theirs = json.loads((DATA / "seed_state_dicts.json").read_text())[name]
    with torch.device("meta"):
        denoiser = Denoiser(build_network(settings_of(name.split("/")[1], theirs["network"])), DiffusionSettings())
    names = fx_names(denoiser)
    assert {names[ours]: list(tensor.shape) for ours, tensor in denoiser.state_dict().items()} == theirs["shapes"]
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == theirs["trainable"]
    assert sum(tensor.numel() for tensor in denoiser.state_dict().values()) == theirs["parameters"]
