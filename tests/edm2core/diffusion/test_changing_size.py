"""A training whose number of processes changes while it runs. `EDM2_TEST_CHANGES=50` makes that many changes instead of three."""

import hashlib
import os
import random
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits

from edm2core.config import load_recipe
from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.batches import Batch
from edm2core.diffusion.trainer import Trainer
from tests.processes import processes

CHANGES = int(os.environ.get("EDM2_TEST_CHANGES", "3"))
SIZES = (1, 2, 4)  # numbers of processes
STEPS = 20  # between two changes
IMAGES = torch.from_numpy((load_digits().images[:50] * (255 / 16)).astype("uint8"))[:, None]
SMALL = {"network.multipliers": [1], "network.attention_resolutions": [], "network.dropout": 0.1, "training.batch": 16}

State = dict[str, torch.Tensor]


def trainer(rank: int = 0, world_size: int = 1) -> Trainer:
    recipe = load_recipe("digits/G", {**SMALL, "training.flip": True})
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=3)
    return Trainer(settings, PixelScale(), IMAGES, rank, world_size)


def drawn(batch: Batch) -> list[str]:
    """A digest of everything that is drawn for each image of a batch: which image it is, its flip, noise level, noise and masks."""
    assert batch.keys is not None
    parts = (batch.images, batch.sigma, batch.noise, batch.keys)
    return [hashlib.sha256(b"".join(part[i].numpy().tobytes() for part in parts)).hexdigest() for i in range(len(batch.sigma))]


def trained(one: Trainer, before: State | None) -> tuple[list[float], list[list[str]]]:
    """The losses of the next steps from a state, over all processes, and what this process drew in each step."""
    if before is not None:
        one.load_state(before)
    losses, orders = [], []
    for _ in range(STEPS):
        parts, weight = one._parts(one.batches.after(one.steps))
        orders.append([digest for part in parts for digest in drawn(part)] if weight else [])
        one.step()
        losses.append(one.close_window()["loss"])
    return losses, orders


def _process(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=size)
    before = torch.load(folder / "before", weights_only=True) if (folder / "before").exists() else None
    one = trainer(rank, size)
    losses, orders = trained(one, before)
    torch.save({"losses": losses, "orders": orders, "state": one.state() if rank == 0 else {}}, folder / f"after-{rank}")
    dist.destroy_process_group()


def together(size: int, before: State | None, folder: Path) -> tuple[list[float], list[list[str]], State]:
    """What `trained` gives for so many processes, and the state afterwards."""
    folder.mkdir()
    if before is not None:
        torch.save(before, folder / "before")
    started = [processes().Process(target=_process, args=(rank, size, folder)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0] * size
    found = [torch.load(folder / f"after-{rank}", weights_only=True) for rank in range(size)]
    orders = [[digest for part in found for digest in part["orders"][step]] for step in range(STEPS)]
    return found[0]["losses"], orders, found[0]["state"]


def apart(one: State, two: State) -> float:
    """How far the weights are from each other, relative to their size."""
    names = [name for name in one if name.startswith("weights/")]
    a, b = (torch.cat([state[name].flatten().double() for name in names]) for state in (one, two))
    return float((a - b).norm() / b.norm())


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * CHANGES)
def test_whenever_the_number_of_processes_changes_training_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    chance, size, state = random.Random(0), 1, None
    order = hashlib.sha256()
    for change in range(CHANGES + 1):
        losses, orders, after = together(size, state, tmp_path / str(change))
        undisturbed = trainer()
        expected, same_orders = trained(undisturbed, state)
        assert losses == pytest.approx(expected, rel=1e-5), f"after change {change}, to {size} processes"
        assert apart(after, undisturbed.state()) < 1e-5
        assert orders == same_orders
        order.update("".join(digest for step in orders for digest in step).encode())
        state = after
        size = chance.choice([other for other in SIZES if other != size])
    whole, alone = hashlib.sha256(), trainer()
    for step in range(STEPS * (CHANGES + 1)):
        whole.update("".join(drawn(alone.batches.after(step))).encode())
    assert order.hexdigest() == whole.hexdigest()
