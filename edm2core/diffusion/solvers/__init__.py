"""Solvers: ways from noise to an image along the noise levels, one file each. `SOLVERS` in edm2core/registry.py lists them.

A solver of your own is a function of the protocol `Solver`, in a file of its own, and a line in that table.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""(x, σ) → D(x; σ), the expected clean images: both [N, C, H, W], at the network's scale, of the same precision. One network evaluation."""

Noise = Callable[[int], Tensor]
"""(step) → float32 [N, C, H, W], unit normal noise for that step. Each image's noise is its own, whatever is drawn beside it."""


class Solver(Protocol):
    """A solver, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, /) -> Tensor:
        """The images at σ = 0, as `x` is: [N, C, H, W] at the network's scale, in the precision of the steps.

        `x` is at sigmas[0]. The levels fall to sigmas[-1] = 0, and step i goes from sigmas[i] to sigmas[i + 1]. A solver calls `denoise`
        as often as its line in the registry says, calls `noise` only if it is stochastic, and reads no number from a tensor, since that
        waits for the device.
        """
