"""Averages of the weights over training (EDM2: arXiv 2312.02696, section 3 and appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edm2core.errors import InputError


class Average:
    """An average of a list of tensors, kept beside them.

    An update is one fused kernel a tensor group and never waits for the device. Buffers are not averaged: they stay those of the module.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [weight.detach().clone() for weight in weights]
        self.count = 0

    def update(self, weights: Sequence[Tensor], batch: int) -> None:
        """Take in the weights as they are after an optimiser step over `batch` images (all processes')."""
        raise NotImplementedError

    @torch.no_grad()
    def _blend(self, weights: Sequence[Tensor], beta: float) -> None:
        torch._foreach_lerp_(self.weights, list(weights), 1 - beta)

    @torch.no_grad()
    def load(self, weights: Sequence[Tensor], count: int) -> None:
        """Go on from an average's `weights` and `count`. Raises ValueError for a list of another length."""
        for average, weight in zip(self.weights, weights, strict=True):
            average.copy_(weight)
        self.count = count


class FixedEma(Average):
    """ema-pytorch's EMA, updated every step: β_n = min(beta, 1 - n^(-2/3)) at update n, so that the first copies. Counts updates."""

    def __init__(self, weights: Sequence[Tensor], beta: float = 0.9993) -> None:
        super().__init__(weights)
        self.beta = beta

    def update(self, weights: Sequence[Tensor], batch: int) -> None:
        self.count += 1
        # In single precision on the CPU, because the library's is: the same bits, and no device is waited for.
        warmup = 1 - torch.tensor(float(self.count), device="cpu") ** (-2 / 3)
        self._blend(weights, warmup.clamp(max=self.beta).item())


class PowerEma(Average):
    """The power-function average of relative width sigma_rel: θ̂ ← β θ̂ + (1-β) θ, β of `power_beta`. Counts images."""

    def __init__(self, weights: Sequence[Tensor], sigma_rel: float) -> None:
        super().__init__(weights)
        self.sigma_rel = sigma_rel

    def update(self, weights: Sequence[Tensor], batch: int) -> None:
        self.count += batch
        self._blend(weights, power_beta(self.sigma_rel, self.count, batch))


@cache
def gamma(sigma_rel: float) -> float:
    """γ of a relative width: the largest real root of γ³ + 7γ² + (16 - σ⁻²)γ + 12 - σ⁻² (equation 126, algorithm 2).

    Raises InputError for a width outside (0, 1/√12), where γ would not be positive.
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise InputError(f"There is no average of relative width {sigma_rel}.", do_next="Choose sigma_rel between 0 and 0.288.")
    t = sigma_rel**-2
    roots = np.roots([1, 7, 16 - t, 12 - t])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


def power_beta(sigma_rel: float, t: float, delta: float) -> float:
    """β = (1 - Δ/t)^(γ+1) of the step that ends at t and took Δ, in the same unit (equation 127); 0 at the first step."""
    return float((1 - delta / t) ** (gamma(sigma_rel) + 1))


def posthoc_coefficients(
    times: Sequence[float], sigma_rels: Sequence[float], out_times: Sequence[float], out_sigma_rels: Sequence[float]
) -> NDArray[np.float64]:
    """How to mix stored averages into others: [stored, wanted], each column normalised to sum 1 (algorithm 3).

    The stored averages have these times (in one unit) and relative widths; the wanted ones likewise.
    """
    t, g = _profiles(times, sigma_rels)
    out_t, out_g = _profiles(out_times, out_sigma_rels)
    mix = np.linalg.solve(_inner_products(t, g, t.T, g.T), _inner_products(t, g, out_t.T, out_g.T))
    coefficients: NDArray[np.float64] = mix / mix.sum(axis=0)
    return coefficients


def _profiles(times: Sequence[float], sigma_rels: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and γ as columns."""
    return np.array(times, np.float64)[:, None], np.array([gamma(s) for s in sigma_rels], np.float64)[:, None]


def _inner_products(
    ta: NDArray[np.float64], ga: NDArray[np.float64], tb: NDArray[np.float64], gb: NDArray[np.float64]
) -> NDArray[np.float64]:
    """∫ p_a p_b of two power-function profiles, for each pair (equation 151)."""
    overlap = np.minimum(ta / tb, tb / ta) ** np.where(ta < tb, gb, ga)
    products: NDArray[np.float64] = (ga + 1) * (gb + 1) * overlap / ((ga + gb + 1) * np.maximum(ta, tb))
    return products
