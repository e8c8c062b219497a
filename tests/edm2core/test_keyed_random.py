import math

import numpy as np
import pytest
import torch

from edm2core.diffusion.devices import pick_device
from edm2core.keyed_random import seed_of


def drawn(seed: int, device: str = "cpu") -> torch.Tensor:
    return torch.randn(8, generator=torch.Generator(device).manual_seed(seed), device=device)


def test_a_generator_on_a_cpu_takes_32_bits_of_a_seed() -> None:
    """As `seed_of` and docs/architecture.md say, with what follows from it; a torch that takes more makes other numbers."""
    seed = seed_of(0, 1, "noise")
    assert torch.equal(drawn(seed), drawn(seed % 2**32))
    assert not torch.equal(drawn(seed), drawn(seed ^ (1 << 31)))


@pytest.mark.needs("gpu")
def test_a_generator_on_a_gpu_takes_all_of_it() -> None:
    seed = seed_of(0, 1, "noise")
    device = pick_device().type  # in a rehearsal the CPU, whose generator takes 32 bits
    assert torch.equal(drawn(seed, device), drawn(seed % 2**32, device)) == (device == "cpu")


def test_seeds_of_32_bits_collide_as_chance_says_and_of_63_bits_never() -> None:
    names = 200_000
    seeds = np.array([seed_of(0, step, "noise") for step in range(names)])
    expected = names**2 / 2**33
    shared = names - len(np.unique(seeds % 2**32))
    assert shared == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert len(np.unique(seeds)) == names


def test_every_part_of_a_name_decides_the_seed() -> None:
    """The number is one that stored trainings were made with."""
    assert seed_of(0, 1, "noise") == 8232369115178498868
    names = [(0, 1, "noise"), (0, 1, "sigma"), (0, 2, "noise"), (1, 1, "noise"), (0, "1noise"), (0, 1)]
    assert len({seed_of(*name) for name in names}) == len(names)
