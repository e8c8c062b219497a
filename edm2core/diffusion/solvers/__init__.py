"""Solvers: ways from noise to an image along the noise levels, one file each. `SOLVERS` in edm2core/registry.py lists them.

A solver of your own is a function of the protocol `Solver` in a file of yours, which `sample.solver` names: docs/how-to/own-code.md.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from edm2core.errors import InputError

Denoise = Callable[[Tensor, float], Tensor]
"""(x, σ) → D(x; σ), the expected clean images: both [N, C, H, W], at the network's scale, of the same precision. One network evaluation."""

Noise = Callable[[int], Tensor]
"""(step) → float32 [N, C, H, W] on the CPU, unit normal noise for that step, which is any whole number of 0 or more.

Each image's noise is its own, whatever is drawn beside it.
"""


class Solver(Protocol):
    """A solver, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, /) -> Tensor:
        """The images at σ = 0, as `x` is: [N, C, H, W] at the network's scale, in the precision of the steps.

        `x` is at sigmas[0]. The levels fall to sigmas[-1] = 0, and step i goes from sigmas[i] to sigmas[i + 1]. A solver calls `denoise`
        as often as its line in the registry says, calls `noise` only if it is stochastic, and reads no number from a tensor, since that
        waits for the device.
        """


def evaluated_levels(solver: Solver, sigmas: Sequence[float]) -> list[float]:
    """The noise levels at which a solver evaluates the network, found on one blank pixel without a network."""
    levels: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        levels.append(sigma)
        return torch.zeros_like(x)

    blank = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    solver(denoise, blank, sigmas, lambda step: blank.float())
    return levels


def checked(address: str, solver: Solver) -> Solver:
    """The user's own solver, which raises InputError where what it returns are no images like those it was given."""

    def solve(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, /) -> Tensor:
        images = solver(denoise, x, sigmas, noise)
        if not isinstance(images, Tensor) or images.shape != x.shape:
            given = f"shape {list(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise InputError(
                f"The own solver returned {given}, where images of shape {list(x.shape)} are needed.",
                where=address,
                do_next="Return the images at the last noise level, as it was given them.",
            )
        return images.to(x)

    return solve
