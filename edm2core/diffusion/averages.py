"""Averages of the weights over training, kept beside them (EDM2: arXiv 2312.02696, section 3 and appendix C)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from edm2core.diffusion.posthoc import power_beta


class Average:
    """An average of a list of tensors, kept beside them.

    An update runs one fused kernel for each group of tensors, and never waits for the device. Buffers are not averaged: the module's own
    are used.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [weight.detach().clone() for weight in weights]
        self.count = 0

    def advance(self, batch: int) -> float:
        """Count an optimiser step over `batch` images, those of all processes together: the share β that the average so far keeps."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], batch: int) -> None:
        """Add to the average the weights after an optimiser step: θ̂ ← β θ̂ + (1-β) θ."""
        torch._foreach_lerp_(self.weights, list(weights), 1 - self.advance(batch))

    @torch.no_grad()
    def load(self, weights: Sequence[Tensor], count: int) -> None:
        """Go on from an average's `weights` and `count`. Raises ValueError for a list of another length."""
        for average, weight in zip(self.weights, weights, strict=True):
            average.copy_(weight)
        self.count = count


class FixedEma(Average):
    """ema-pytorch's EMA, updated every step: β_n = min(beta, 1 - n^(-2/3)) at update n, so that the first copies the weights.

    `count` counts updates.
    """

    def __init__(self, weights: Sequence[Tensor], beta: float = 0.9993) -> None:
        super().__init__(weights)
        self.beta = beta

    def advance(self, batch: int) -> float:
        self.count += 1
        # The library computes this in single precision. Doing so on the CPU gives the same bits, and waits for no device.
        warmup = 1 - torch.tensor(float(self.count), device="cpu") ** (-2 / 3)
        return float(warmup.clamp(max=self.beta).numpy())


class PowerEma(Average):
    """The power-function average of relative width sigma_rel. `count` counts images."""

    def __init__(self, weights: Sequence[Tensor], sigma_rel: float) -> None:
        super().__init__(weights)
        self.sigma_rel = sigma_rel

    def advance(self, batch: int) -> float:
        self.count += batch
        return power_beta(self.sigma_rel, self.count, batch)
