"""torch.compile for a U-Net, where it saves time and only where the compiled network gives the same numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edm2core.config.fields import Compile, Precision
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.diffusion.unet import UNet

COST_S = {"sampling": 60.0, "training": 150.0}  # estimated time of compiling; training compiles a backward pass too
GAIN = 1.25  # estimated speed of a compiled network relative to an eager one
TOLERANCE: dict[Precision, float] = {"fp32": 5e-3, "bf16": 5e-2, "fp16": 2e-2}
"""The largest relative difference of a network that is kept. Fused operations round TF32 and half precision at other places. A wrong
network is off by far more."""


@dataclass(frozen=True)
class Compiled:
    """The outcome of compiling, which `words` describe to a person."""

    adopted: bool
    words: str


def wanted(compile: Compile, device: torch.device, seconds_left: float, work: str) -> bool:
    """Whether to compile: always, never, or (auto) on a GPU where it saves more of the `seconds_left` than it takes."""
    if compile == "auto":
        return device.type == "cuda" and seconds_left * (1 - 1 / GAIN) > COST_S[work]
    return compile == "always"


def adopt(network: UNet | OwnNetwork, size: int, run: Callable[[], Sequence[Tensor]], precision: Precision, **options: Any) -> Compiled:
    """Compile `network` for batches of `size`, and keep it compiled if its numbers stay the same.

    `run` evaluates the network on a batch of that size and returns the tensors to compare. `options` are torch.compile's.
    """
    expected = run()
    began = time.monotonic()
    torch.compiler.reset()  # drop earlier graphs: they count towards the recompile limit  # type: ignore[no-untyped-call]
    network.fast = size, torch.compile(network.evaluate, dynamic=False, **options)
    try:
        difference = max(_difference(a, b) for a, b in zip(run(), expected, strict=True))
    except Exception as error:  # the compiler and its toolchain can raise anything; the eager network still works
        difference, why = float("inf"), " ".join(f"{type(error).__name__}: {error}".split())[:200]
    else:
        why = f"its numbers are off by {difference:.1%}, more than {TOLERANCE[precision]:.1%}"
    took = f"{time.monotonic() - began:.0f} s"
    if difference <= TOLERANCE[precision]:
        return Compiled(True, f"The network is compiled for batches of {size} in {took}; its numbers are the same to {difference:.1e}.")
    network.fast = None
    return Compiled(False, f"The network runs as it is, since compiling it failed after {took}: {why}.")


@torch.no_grad()
def _difference(given: Tensor, expected: Tensor) -> float:
    """‖given - expected‖ / ‖expected‖; infinite where either is not finite."""
    a, b = given.double(), expected.double()
    difference = float((a - b).norm() / b.norm().clamp_min(1e-30))
    return difference if difference < float("inf") else float("inf")
