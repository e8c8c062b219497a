"""Configs C, E, G of FutureXiang/edm2 in eager PyTorch: contiguous NCHW, float32, softmax written out, weights normalised in every forward.

Its modules carry the product's names, so the product's weights can be loaded and the outputs compared.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm2core.config.settings import NetworkSettings


def normalize(weight: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    return weight / (1e-4 + norm / math.sqrt(weight[0].numel()))


class Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, forced: bool) -> None:
        super().__init__()
        self.weight, self.forced, self.padding = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel)), forced, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _applied(self), padding=self.padding)


class Linear(nn.Module):
    def __init__(self, inputs: int, outputs: int, forced: bool) -> None:
        super().__init__()
        self.weight, self.forced = nn.Parameter(torch.randn(outputs, inputs)), forced

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _applied(self))


def _applied(layer: Conv | Linear) -> Tensor:
    if not layer.forced:
        return layer.weight
    if layer.training:
        with torch.no_grad():
            layer.weight.copy_(normalize(layer.weight))
    return normalize(layer.weight) / math.sqrt(layer.weight[0].numel())


class Fourier(nn.Module):
    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("frequencies", torch.randn(features))
        self.register_buffer("phases", torch.rand(features))

    def forward(self, c: Tensor) -> Tensor:
        return self.scale * torch.cos(2 * math.pi * (c[:, None] * self.frequencies + self.phases))


class Embedding(nn.Module):
    def __init__(self, settings: NetworkSettings, forced: bool, preserving: bool) -> None:
        super().__init__()
        width = 4 * settings.channels
        self.silu = mp_silu if preserving else F.silu
        self.fourier = Fourier(settings.channels, math.sqrt(2) if preserving else 1.0)
        self.linear1 = Linear(settings.channels, width, forced)
        self.linear2 = None if preserving else Linear(width, width, forced)

    def forward(self, c_noise: Tensor) -> Tensor:
        y = self.silu(self.linear1(self.fourier(c_noise)))
        return y if self.linear2 is None else self.silu(self.linear2(y))


def mp_silu(x: Tensor) -> Tensor:
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([scale * (1 - t) / math.sqrt(na) * a, scale * t / math.sqrt(nb) * b], dim=1)


def pixel_norm(x: Tensor) -> Tensor:
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


class Attention(nn.Module):
    def __init__(self, channels: int, forced: bool) -> None:
        super().__init__()
        self.qkv, self.output = Conv(channels, 3 * channels, 1, forced), Conv(channels, channels, 1, forced)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (pixel_norm(y).flatten(2) for y in self.qkv(x).chunk(3, dim=1))
        weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(q.shape[1])).softmax(dim=2)
        return self.output(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape))


class Block(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, settings: NetworkSettings, *, encoder: bool, resample: str = "", attention: bool = False
    ) -> None:
        super().__init__()
        forced, self.preserving = settings.weights == "forced", settings.magnitude_preserving
        self.encoder, self.resample, self.clip, self.dropout = encoder, resample, settings.clip, settings.dropout
        self.embed = Linear(4 * settings.channels, outputs, forced)
        if self.preserving:
            self.gain = nn.Parameter(torch.ones(()))
        else:
            self.norm1, self.norm2 = nn.GroupNorm(32, inputs, affine=False), nn.GroupNorm(32, outputs, affine=False)
        self.skip = Conv(inputs, outputs, 1, forced) if inputs != outputs else nn.Identity()
        self.conv1 = Conv(outputs if encoder and self.preserving else inputs, outputs, 3, forced)
        self.conv2 = Conv(outputs, outputs, 3, forced)
        self.attention = Attention(outputs, forced) if attention else None

    def resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self._preserving(x, embedding) if self.preserving else self._normalizing(x, embedding)
        if self.attention is not None:
            y = mp_sum(y, self.attention(y), 0.3) if self.preserving else y + self.attention(y)
        return y if self.clip is None else torch.clip(y, -self.clip, self.clip)

    def _normalizing(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.conv1(self.resampled(F.silu(self.norm1(x))))
        y = F.silu(self.norm2(y) * (1 + self.embed(embedding)[:, :, None, None]))
        return self.skip(self.resampled(x)) + self.conv2(F.dropout(y, self.dropout, self.training))

    def _preserving(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resampled(x)
        if self.encoder:
            x = pixel_norm(self.skip(x))
        y = self.conv1(mp_silu(x))
        y = mp_silu(y * (1 + self.gain * self.embed(embedding)[:, :, None, None]))
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        return mp_sum(x if self.encoder else self.skip(x), y, 0.3)


class Head(nn.Module):
    def __init__(self, settings: NetworkSettings, forced: bool) -> None:
        super().__init__()
        self.norm = None if settings.magnitude_preserving else nn.GroupNorm(8, settings.channels, affine=False)
        self.conv = Conv(settings.channels, settings.image_channels, 3, forced)
        self.gain = nn.Parameter(torch.zeros(())) if settings.magnitude_preserving else None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.silu(self.norm(x))) if self.norm is not None else self.conv(x) * self.gain


class UNet(nn.Module):
    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        forced, self.preserving = settings.weights == "forced", settings.magnitude_preserving
        widths = [settings.channels * multiplier for multiplier in settings.multipliers]
        attends = [settings.resolution >> level in settings.attention_resolutions for level in range(len(widths))]
        self.embedding = Embedding(settings, forced, self.preserving)
        self.stem = Conv(settings.image_channels + 1, settings.channels, 3, forced)
        encoder, decoder, self.takes_skip = [], [], []
        width = settings.channels
        skips = [width]
        for level, outputs in enumerate(widths):
            for _ in range(settings.blocks - 1):
                encoder.append(Block(width, outputs, settings, encoder=True, attention=attends[level]))
                skips.append(width := outputs)
            if level < len(widths) - 1:
                encoder.append(Block(width, width, settings, encoder=True, resample="down"))
                skips.append(width)
        self.encoder = nn.ModuleList(encoder)
        middle = [Block(width, width, settings, encoder=True, attention=attention) for attention in (True, False)]
        self.middle = nn.ModuleList(middle)
        for level in reversed(range(len(widths))):
            for _ in range(settings.blocks):
                decoder.append(Block(width + skips.pop(), widths[level], settings, encoder=False, attention=attends[level]))
                width = widths[level]
                self.takes_skip.append(True)
            if level > 0:
                decoder.append(Block(width, width, settings, encoder=False, resample="up"))
                self.takes_skip.append(False)
        self.decoder = nn.ModuleDict({f"out_{number}": block for number, block in enumerate(decoder, start=1)})
        self.head = Head(settings, forced)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.outputs(x, c_noise)[0]

    def outputs(self, x: Tensor, c_noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output and every decoder block's."""
        embedding = self.embedding(c_noise)
        x = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips, found = [x], {}
        for block in self.encoder:
            x = block(x, embedding)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for (name, block), takes_skip in zip(self.decoder.items(), self.takes_skip, strict=True):
            if takes_skip:
                skip = skips.pop()
                x = mp_cat(x, skip, 0.5) if self.preserving else torch.cat([x, skip], dim=1)
            x = found[name] = block(x, embedding)
        return self.head(x), found


class LogVariance(nn.Module):
    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.fourier = Fourier(256, math.sqrt(2) if settings.magnitude_preserving else 1.0)
        self.linear = Linear(256, 1, settings.weights == "forced")

    def forward(self, c_noise: Tensor) -> Tensor:
        return self.linear(self.fourier(c_noise))


class Denoiser(nn.Module):
    def __init__(self, settings: NetworkSettings, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network, self.uncertainty, self.sigma_data = UNet(settings), LogVariance(settings), sigma_data

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """[N, C, H, W] and [N, 1, 1, 1] → [N, C, H, W]."""
        c_skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        c_out = sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
        c_in = 1 / (self.sigma_data**2 + sigma**2).sqrt()
        return c_skip * x + c_out * self.network(c_in * x, sigma.flatten().log() / 4)

    def loss(self, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
        log_variance = self.uncertainty(sigma.flatten().log() / 4)[:, :, None, None]
        return (weight / log_variance.exp() * (self(x + sigma * noise, sigma) - x) ** 2 + log_variance).mean()

    def features(self, x: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        """Every decoder block's output, averaged over its pixels."""
        c_in = 1 / (self.sigma_data**2 + sigma**2).sqrt()
        _, found = self.network.outputs(c_in * x, sigma.flatten().log() / 4)
        return {name: y.mean(dim=(2, 3)) for name, y in found.items()}


@torch.no_grad()
def sample(denoiser: Denoiser, latents: Tensor, steps: int) -> Tensor:
    """Heun's sampler (EDM, algorithm 2), deterministic, D clipped: images in [0, 1]."""
    i = torch.arange(steps, dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).to(latents.device)
    x = latents.double() * sigmas[0]
    for now, following in pairwise(sigmas):
        d = (x - _denoise(denoiser, x, now)) / now
        euler = x + (following - now) * d
        if following > 0:
            d = (d + (euler - _denoise(denoiser, euler, following)) / following) / 2
        x = x + (following - now) * d
    return ((x + 1) / 2).clip(0, 1)


def _denoise(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    return denoiser(x.float(), sigma.float().expand(len(x)).reshape(-1, 1, 1, 1)).double().clip(-1, 1)
