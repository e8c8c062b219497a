"""The equations that the U-Net is made of (EDM2: arXiv 2312.02696, section 2 and appendix B)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mp_silu(x: Tensor) -> Tensor:
    """SiLU that keeps unit magnitude (equation 81)."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """((1-t) a + t b) / √((1-t)² + t²) (equation 88)."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Concatenation of [N, Na, H, W] and [N, Nb, H, W] in which b contributes the share t (equation 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale * (1 - t) / math.sqrt(na)), b * (scale * t / math.sqrt(nb))], dim=1)


def plain_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    return a + b


def plain_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    return torch.cat([a, b], dim=1)


@dataclass(frozen=True)
class Operations:
    """How signals are bent and joined; `fourier` scales the Fourier features."""

    silu: Callable[[Tensor], Tensor]
    sum: Callable[[Tensor, Tensor, float], Tensor]
    cat: Callable[[Tensor, Tensor, float], Tensor]
    fourier: float


PLAIN = Operations(F.silu, plain_sum, plain_cat, fourier=1.0)
MAGNITUDE_PRESERVING = Operations(mp_silu, mp_sum, mp_cat, fourier=math.sqrt(2))


def pixel_norm(x: Tensor) -> Tensor:
    """x / √(mean(x²) + 1e-8) over the channels of [N, C, H, W], computed in float32."""
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(dim=1, keepdim=True) + 1e-8)).to(x.dtype)


def group_norm(x: Tensor, groups: int = 32) -> Tensor:
    """Zero mean and unit variance within each group of channels, no scale or shift, computed in float32."""
    return F.group_norm(x.float(), groups, eps=1e-5).to(x.dtype)


def same(x: Tensor) -> Tensor:
    return x


def down(x: Tensor) -> Tensor:
    """2×2 average."""
    return F.avg_pool2d(x, 2)


def up(x: Tensor) -> Tensor:
    """Every pixel becomes 2×2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def normalize(weight: Tensor) -> Tensor:
    """w / (1e-4 + ‖w‖/√fan_in), the norm for each output over all other axes (equation 47)."""
    norm: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    return weight / (1e-4 + norm / math.sqrt(weight[0].numel()))


class Weighted(nn.Module):
    """A bias-free learned map; the only place where a stored weight becomes the one that is applied.

    plain: the stored weight, initialised as torch does (uniform within ±1/√fan_in).
    forced: the normalised weight / √fan_in, initialised N(0, 1) (equations 47 and 66).
    """

    def __init__(self, *shape: int, forced: bool) -> None:
        super().__init__()
        self.forced = forced
        self.std = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = nn.Parameter(torch.randn(shape) if forced else torch.empty(shape).uniform_(-self.std, self.std))

    def effective_weight(self) -> Tensor:
        return normalize(self.weight) * self.std if self.forced else self.weight


class Conv(Weighted):
    """A convolution that keeps the image's size (odd kernels)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, forced: bool) -> None:
        super().__init__(outputs, inputs, kernel, kernel, forced=forced)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.effective_weight(), padding=self.padding)


class Linear(Weighted):
    """A matrix, applied in float32 under autocast too: all of the network's are about σ, where half precision costs quality."""

    def __init__(self, inputs: int, outputs: int, *, forced: bool) -> None:
        super().__init__(outputs, inputs, forced=forced)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.effective_weight())


class Fourier(nn.Module):
    """scale · cos(2π (f c + φ)) of a scalar c: [N] → [N, features], f ~ N(0, 1) and φ ~ U(0, 1) fixed (equation 75)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("frequencies", torch.randn(features))
        self.register_buffer("phases", torch.rand(features))

    def forward(self, c: Tensor) -> Tensor:
        return self.scale * torch.cos(2 * math.pi * (c.float()[:, None] * self.frequencies + self.phases))


@torch.no_grad()
def normalize_weights_(module: nn.Module) -> None:
    """Replace every forced weight in `module` by its normalised self, once before each optimiser step's first forward (section 2.3)."""
    for layer in module.modules():
        if isinstance(layer, Weighted) and layer.forced:
            layer.weight.copy_(normalize(layer.weight))
