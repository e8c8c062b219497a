"""Where features are taken: cells (t, block) of a frozen denoiser, or raw pixels."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edm2core.config.fields import Precision
from edm2core.config.settings import ProbeSettings
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.devices import autocast
from edm2core.diffusion.noise_levels import probe_sigma
from edm2core.keyed_random import seed_of

Name = tuple[int | str, ...]


class Cell(NamedTuple):
    """Where features are taken: noise level t (0: no noise) and decoder block."""

    t: int
    block: str

    @property
    def sigma(self) -> float:
        return probe_sigma(self.t) if self.t else 0.0


PIXELS = Cell(0, "pixels")
Features = Callable[[Tensor, Name], dict[Cell, Tensor]]
"""(images [n, C, H, W] at the network's scale, name of the noise that is added to them) → float32 [n, width] of every cell."""
FeaturesOf = Callable[[Sequence[Cell]], Features]
"""How the features of some cells are computed."""


def cells_of(settings: ProbeSettings, block_names: Sequence[str]) -> list[Cell]:
    """The cells that the settings name, in the order of t and of the blocks; `block_names` are those that `all` stands for."""
    blocks = block_names if settings.blocks == ("all",) else settings.blocks
    return list(dict.fromkeys(Cell(t, block) for t in settings.t for block in blocks))


def grouped(cells: Iterable[Cell], number: Callable[[Cell], int]) -> dict[int, list[Cell]]:
    """The cells by a number that each has. Numbers are in the order of their first cells."""
    groups: dict[int, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(number(cell), []).append(cell)
    return groups


def denoiser_features(denoiser: Denoiser, cells: Sequence[Cell], precision: Precision = "fp32") -> Features:
    """Pooled block outputs of a denoiser in eval mode on noised images; one forward per noise level, up to the last wanted block.

    A cell's noise does not depend on which other cells are looked at.
    """
    by_t = grouped(cells, lambda cell: cell.t)

    @torch.inference_mode()
    def features(images: Tensor, name: Name) -> dict[Cell, Tensor]:
        by_cell: dict[Cell, Tensor] = {}
        for t, wanted in by_t.items():
            sigma = probe_sigma(t)
            noise = torch.randn(images.shape, generator=generator(images.device, *name, "noise", t), device=images.device)
            with autocast(images.device.type, precision):
                pooled = denoiser.features(images + sigma * noise, sigma, [cell.block for cell in wanted])
            by_cell |= {cell: pooled[cell.block].float() for cell in wanted}
        return by_cell

    return features


def pixel_features(images: Tensor, name: Name) -> dict[Cell, Tensor]:
    """The images themselves, without noise: the baseline of a linear classifier on raw pixels."""
    return {PIXELS: images.flatten(1)}


def generator(device: torch.device, *name: int | str) -> torch.Generator:
    """A generator of random numbers that is seeded by its name alone."""
    return torch.Generator(device).manual_seed(seed_of("probe", *name))
