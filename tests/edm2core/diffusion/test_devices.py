"""How a process computes is said in one place."""

import os
from collections.abc import Iterator

import pytest
import torch

from edm2core.config import load_recipe
from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.devices import compute
from edm2core.diffusion.trainer import Trainer


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    compute(tf32=False)


def flags() -> tuple[str, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()


def test_tf32_and_determinism_are_set_as_asked() -> None:
    compute(tf32=True)
    assert flags() == ("high", True, True, False)
    compute(tf32=False, deterministic=True)
    assert flags() == ("highest", False, False, True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    compute(tf32=False)
    assert flags() == ("highest", False, True, False)


@pytest.mark.parametrize("exact", [True, False])
def test_a_training_computes_as_its_settings_say(exact: bool) -> None:
    recipe = load_recipe("digits/C", {"training.exact": exact, "training.batch": 4})
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    trainer = Trainer(settings, PixelScale(), torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    assert flags() == (("highest", False, False, True) if exact else ("high", True, True, False))
    trainer.step()  # every kernel is deterministic, or this would raise
