"""What `exact` promises: the same work, cut the same way, gives the same bits; cut otherwise, it differs by float32's rounding alone.

More is not to be had: libraries choose the kernel of a matrix product by the number of its rows, and of a convolution by the batch, so that
sums over the same numbers are added up in another order.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor

from edm2core.config import load_recipe
from edm2core.config.settings import SampleSettings, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import compute, pick_device
from edm2core.diffusion.folding import prepare_for_inference
from edm2core.diffusion.trainer import Trainer
from edm2core.stages.sample import draw_images

COUNT = 12
EXACT = SampleSettings(count=COUNT, steps=3, eta=1.0, s_max=80.0, exact=True)
CUTS = st.sets(st.integers(1, COUNT - 1)).map(lambda inner: [0, *sorted(inner), COUNT])  # where one batch ends and the next begins


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    compute(tf32=False, deterministic=True)
    yield
    compute(tf32=False)


@cache
def denoiser(config: str) -> Denoiser:
    recipe = load_recipe(f"digits/{config}")
    torch.manual_seed(0)
    made = Denoiser(build_network(recipe.network), recipe.diffusion).requires_grad_(False).eval()
    for gain in (parameter for parameter in made.parameters() if parameter.ndim == 0):
        gain.fill_(1.0)  # that of G's output starts at 0, which would hide everything
    return prepare_for_inference(made, pick_device())


def drawn(config: str, cuts: list[int]) -> Tensor:
    parts = [draw_images(denoiser(config), EXACT, 0, range(begin, end)) for begin, end in pairwise(cuts)]
    return torch.cat([torch.from_numpy(part) for part in parts]).int()


@pytest.mark.gpu
@pytest.mark.parametrize("config", ["C", "E", "G"])
@settings(deadline=None, max_examples=3)
@given(cuts=CUTS)
def test_images_have_the_same_bits_each_time_and_differ_by_rounding_between_batches(config: str, cuts: list[int]) -> None:
    found = drawn(config, cuts)
    assert torch.equal(found, drawn(config, cuts))
    assert (found - drawn(config, [0, COUNT])).abs().max() <= 1  # of 255


def trajectory() -> TrajectorySettings:
    changed = {"training.batch": 16, "training.exact": True, "network.multipliers": [1], "network.attention_resolutions": [8]}
    recipe = load_recipe("digits/E", {**changed, "network.dropout": 0.13})
    return TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=3)


def trained(steps: int, rank: int = 0, world_size: int = 1, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state after so many steps, from the beginning or another state."""
    images = torch.from_numpy((load_digits().images[:40] * (255 / 16)).astype("uint8"))[:, None]
    trainer = Trainer(trajectory(), PixelScale(), images.to(pick_device()), rank, world_size)
    if state is not None:
        trainer.load_state(state)
    for _ in range(steps):
        trainer.step()
    trainer.gather_window()
    return trainer.state()


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.gpu
def test_a_training_has_the_same_bits_each_time_and_when_it_goes_on_from_a_state() -> None:
    once = trained(6)
    assert same_bits(once, trained(6))
    assert same_bits(once, trained(2, state=trained(4)))


@pytest.mark.slow
def test_two_processes_train_to_the_same_bits_however_often_they_are_stopped(tmp_path: Path) -> None:
    """40 images in batches of 16, 16 and 8: the second pair of processes stops within an epoch and in the next."""
    for name in ("once", "stopped"):
        (tmp_path / name).mkdir()
        processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path / name)]) for rank in (0, 1)]
        assert [process.wait(120) for process in processes] == [0, 0]
    once, stopped = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("once", "stopped"))
    losses = [state.pop("window/loss") for state in (once, stopped)]  # a sum for the curve: every stop adds up both processes' part
    assert same_bits(once, stopped)
    torch.testing.assert_close(*losses)


def _process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    state: dict[str, Tensor] | None = None
    for steps in (2, 3, 1) if folder.name == "stopped" else (6,):
        both = [trained(steps, rank, 2, state)]
        dist.broadcast_object_list(both)  # as a stage does: the first process's state is everyone's
        state = both[0]
    if rank == 0:
        torch.save(state, folder / "state.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    _process(int(sys.argv[1]), Path(sys.argv[2]))
