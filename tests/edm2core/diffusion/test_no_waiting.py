"""Neither a training step nor a sampler's step waits for its device: nothing in it asks what a number on the device is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edm2core.config import load_recipe
from edm2core.config.settings import SampleSettings, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.noise_levels import levels_of
from edm2core.diffusion.sampler import Guidance, denoise_with
from edm2core.diffusion.trainer import WINDOW, Trainer
from edm2core.registry import SOLVERS, load

WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal", "aten::is_nonzero"}

CUDA = torch.cuda.is_available()


class NoWaiting(TorchDispatchMode):
    """Refuses what would read a number from a device, on a CPU too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().split(".")[0] in WAITING:
            raise AssertionError(f"{func.name()} waits for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """On a GPU CUDA itself watches, too."""
    watched = torch.cuda.is_available()
    if watched:
        torch.cuda.set_sync_debug_mode("error")
    try:
        with NoWaiting():
            yield
    finally:
        if watched:
            torch.cuda.set_sync_debug_mode("default")


def trainer(config: str, **overrides: Any) -> Trainer:
    recipe = load_recipe(
        f"digits/{config}",
        {"training.batch": 2, "network.multipliers": [1], "network.attention_resolutions": [8], "network.dropout": 0.1, **overrides},
    )
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8).to(pick_device())
    return Trainer(settings, PixelScale(), images, labels=torch.arange(4, device=images.device))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"training.precision": "bf16"},
        {"training.precision": "fp16"},
        {"training.micro_batch": 1, "training.flip": True},
        {"training.grad_checkpoint": True},
        {"training.augment": {"probability": 1.0}},
        {"training.optimizer": "muon", "training.clip_norm": 1.0, "training.precision": "fp16"},
    ],
    ids=str,
)
@pytest.mark.gpu
@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_no_step_of_an_epoch_waits(config: str, overrides: dict[str, Any]) -> None:
    training = trainer(config, **overrides)
    training.step()  # optimiser and averages make their tensors
    with no_waiting():
        for _ in range(2):  # the last step of an epoch, which measures its update, and the first of the next
            training.step()
    assert training.steps == 3 < WINDOW


@pytest.mark.gpu
@pytest.mark.parametrize("solver", SOLVERS)
def test_no_step_of_a_sampler_waits(solver: str) -> None:
    settings = SampleSettings.model_validate({"solver": solver, "steps": 5, **({"eta": 1.0} if "eta" in SOLVERS[solver].options else {})})
    device, sigmas = pick_device(), levels_of(settings).tolist()
    start, noise = torch.ones(2, 1, 4, 4, dtype=torch.float64, device=device), torch.ones(2, 1, 4, 4, device=device)
    solve = load(SOLVERS[solver].solve)
    with no_waiting():
        solve(lambda x, sigma: x / (1 + sigma**2), start, sigmas, lambda step: noise, **settings.options_of("solver"))


@pytest.mark.gpu
@pytest.mark.parametrize("images", [2, 100])
@pytest.mark.parametrize("classes", [0, pytest.param(10, marks=pytest.mark.skipif(not CUDA, reason="one_hot reads labels on a CPU"))])
def test_no_guided_evaluation_waits(images: int, classes: int) -> None:
    recipe, device = load_recipe("digits/C", {"network.classes": classes}), pick_device()
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion).eval().requires_grad_(False).to(device)
    x, labels = torch.ones(images, 1, 8, 8, device=device), torch.zeros(images, dtype=torch.int64, device=device) if classes else None
    denoise = denoise_with(denoiser, labels, Guidance(1.5, None if classes else denoiser), clip=True, state=torch.float64)
    with torch.no_grad(), no_waiting():
        denoise(x, 1.0)


def test_the_guard_notices_who_asks() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), no_waiting():
        float(torch.ones(()))
