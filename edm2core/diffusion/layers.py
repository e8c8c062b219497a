"""The equations that the U-Net is made of (EDM2: arXiv 2312.02696, section 2 and appendix B; equation numbers are its own)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm2core.config.fields import GroupNormKind, Init, PixelEpsilon, Weights

BALANCE = 0.3  # share of a residual branch in a magnitude-preserving sum (EDM2, appendix B)
EVEN = 0.5  # share of the skip in a concatenation, and of the class in the embedding
SILU_MAGNITUDE = 0.596  # root mean square of SiLU(x) for x ~ N(0, 1)


def mp_silu(x: Tensor) -> Tensor:
    """Magnitude-preserving SiLU: SiLU(x) / 0.596 (equation 81)."""
    return F.silu(x) / SILU_MAGNITUDE


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Magnitude-preserving sum, to which b contributes the share t: ((1-t) a + t b) / √((1-t)² + t²) (equation 88)."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Magnitude-preserving concatenation of [N, Na, H, W] and [N, Nb, H, W], to which b contributes the share t (equation 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([_scaled(a, scale * (1 - t) / math.sqrt(na)), _scaled(b, scale * t / math.sqrt(nb))], dim=1)


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if math.isclose(factor, 1.0) else x * factor


class Operations(NamedTuple):
    """A network's nonlinearity, its sum and its concatenation of two signals, and the factor of its Fourier features.

    `sum` and `cat` take the share of the second signal, which only the magnitude-preserving ones use.
    """

    silu: Callable[[Tensor], Tensor]
    sum: Callable[[Tensor, Tensor, float], Tensor]
    cat: Callable[[Tensor, Tensor, float], Tensor]
    fourier: float


PLAIN = Operations(F.silu, lambda a, b, t: a + b, lambda a, b, t: torch.cat([a, b], dim=1), 1.0)
MAGNITUDE_PRESERVING = Operations(mp_silu, mp_sum, mp_cat, math.sqrt(2))


NORM_EPSILON, VARIANCE_EPSILON = 1e-4, 1e-5  # added to norms, and to variances in GroupNorm


def pixel_norm(x: Tensor, epsilon: PixelEpsilon, dim: int = 1) -> Tensor:
    """x divided by its root mean square along `dim`, the channels; computed in float32.

    inside: x / √(mean(x²) + 1e-8), as in FutureXiang/edm2. outside: x / (1e-4 + √mean(x²)), as in NVlabs/edm2.
    """
    y = x.float()
    if epsilon == "inside":
        return (y * torch.rsqrt(y.square().mean(dim=dim, keepdim=True) + 1e-8)).to(x.dtype)
    return unit(y, (dim,)).to(x.dtype)


def unit(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """x / (1e-4 + its root mean square over these axes). Its gradient is 0, not NaN, where x is 0."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dims, keepdim=True)
    return x / (NORM_EPSILON + norm / math.sqrt(math.prod([x.shape[dim] for dim in dims])))


class GroupNorm(nn.Module):
    """Each group of channels of [N, channels, H, W] brought to unit size, computed in float32.

    group: zero mean and unit variance, ε 1e-5, nothing learned (FutureXiang/edm2).
    group_affine: the same with a learned scale and shift for each channel (ADM: arXiv 2105.05233).
    group_rms: divided by 1e-4 + the group's root mean square, nothing learned (EDM2's config C).
    """

    def __init__(self, channels: int, kind: GroupNormKind, groups: int = 32) -> None:
        super().__init__()
        self.kind, self.groups = kind, groups
        self.weight = nn.Parameter(torch.ones(channels)) if kind == "group_affine" else None
        self.bias = nn.Parameter(torch.zeros(channels)) if kind == "group_affine" else None

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        if self.kind == "group_rms":
            return unit(_grouped(y, self.groups), (2, 3, 4)).flatten(1, 2).to(x.dtype)
        if not y.is_cuda:
            return F.group_norm(y, self.groups, self.weight, self.bias, eps=VARIANCE_EPSILON).to(x.dtype)
        y = standardized(y, self.groups)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)


def standardized(x: Tensor, groups: int) -> Tensor:
    """F.group_norm that keeps the channels_last format. The CUDA kernel of F.group_norm would return a contiguous tensor."""
    grouped = _grouped(x, groups)
    variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0, keepdim=True)
    return ((grouped - mean) * torch.rsqrt(variance + VARIANCE_EPSILON)).flatten(1, 2)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[N, C, H, W] → [N, groups, C/groups, H, W], a view in any memory format."""
    y: Tensor = x.unflatten(1, (groups, -1))  # type: ignore[no-untyped-call]
    return y


def down(x: Tensor) -> Tensor:
    """2×2 average."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():  # avg_pool2d has no deterministic backward on CUDA
        return averaged(x)
    return F.avg_pool2d(x, 2)


def averaged(x: Tensor) -> Tensor:
    """F.avg_pool2d(x, 2) as a mean. Its backward adds nothing up, so it is deterministic on every device."""
    pairs: Tensor = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]
    return pairs.mean(dim=(3, 5))


def up(x: Tensor) -> Tensor:
    """Every pixel becomes 2×2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def mirrored(images: Tensor, which: Tensor, axis: int = 3) -> Tensor:
    """The images [N, C, H, W], of which those that `which`, bool [N], names are mirrored: left to right, or along another axis."""
    return torch.where(which[:, None, None, None], images.flip(axis), images)


def normalize(weight: Tensor) -> Tensor:
    """w / (1e-4 + ‖w‖/√fan_in), the norm for each output over all other axes (equation 47)."""
    return unit(weight, tuple(range(1, weight.ndim)))


@dataclass(frozen=True)
class Learned:
    """How a network's learned maps are stored, initialised and applied.

    `weights`: plain ones are applied as they are stored. Of normalized ones, w/(1e-4 + ‖w‖/√fan_in)/√fan_in is applied (equation 47), and
    they start as N(0, 1). Forced ones are normalized, and the stored w is itself normalised before every training step (equation 66).
    `init` of plain weights: None is torch's, uniform within ±1/√fan_in. he is uniform within ±√(6/fan_in) (He et al.: arXiv 1502.01852).
    adm is torch's, but zero where a map ends a branch or the network.
    """

    weights: Weights = "plain"
    init: Init | None = None
    biases: bool = False


class Weighted(nn.Module):
    """A learned map. Every forward makes the weight that is applied from the stored one. `ends`: the map ends a branch or the network."""

    def __init__(self, *shape: int, learned: Learned, ends: bool = False) -> None:
        super().__init__()
        self.normalized, self.forced = learned.weights != "plain", learned.weights == "forced"
        self.std = 1 / math.sqrt(math.prod(shape[1:]))  # 1/√fan_in
        bound = math.sqrt(6) * self.std if learned.init == "he" else 0.0 if ends and learned.init == "adm" else self.std
        self.weight = nn.Parameter(torch.randn(shape) if self.normalized else torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound)) if learned.biases else None

    def effective_weight(self) -> Tensor:
        """The weight that is applied."""
        return normalize(self.weight) * self.std if self.normalized else self.weight


class Conv(Weighted):
    """A convolution that keeps the image's size (odd kernels)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, learned: Learned, *, ends: bool = False) -> None:
        super().__init__(outputs, inputs, kernel, kernel, learned=learned, ends=ends)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.effective_weight(), self.bias, padding=self.padding)


class Linear(Weighted):
    """A matrix, applied in float32 even under autocast. All of the network's matrices act on σ, where half precision costs quality."""

    def __init__(self, inputs: int, outputs: int, learned: Learned) -> None:
        super().__init__(outputs, inputs, learned=learned)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.effective_weight(), self.bias)


class Table(Linear):
    """A matrix that takes one-hot vectors, so that each of its columns is the embedding of a class."""


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


class Positional(nn.Module):
    """cos and sin of c·10000^(-i/half), i = 0 … half - 1, of a scalar c: [N] → [N, 2·half = features] (ADM's)."""

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        self.register_buffer("frequencies", 10_000 ** (-torch.arange(half) / half))

    def forward(self, c: Tensor) -> Tensor:
        angles = c.float()[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)


@torch.no_grad()
def normalize_weights_(module: nn.Module) -> None:
    """Replace every forced weight in `module` by its normalised self, once before each optimiser step's first forward (equation 66)."""
    for layer in module.modules():
        if isinstance(layer, Weighted) and layer.forced:
            layer.weight.copy_(normalize(layer.weight))
