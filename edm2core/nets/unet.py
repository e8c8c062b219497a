"""One U-Net; configs C, E and G are switches of its settings (EDM2, section 2, as FutureXiang/edm2 builds them)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edm2core.config.settings import NetworkSettings
from edm2core.errors import InputError
from edm2core.nets.layers import MAGNITUDE_PRESERVING, PLAIN, Conv, Fourier, Linear, Operations, down, group_norm, pixel_norm, same, up

BALANCE = 0.3  # share of a residual branch in magnitude-preserving sums (EDM2, appendix B)


def operations(settings: NetworkSettings) -> Operations:
    return MAGNITUDE_PRESERVING if settings.magnitude_preserving else PLAIN


class Embedding(nn.Module):
    """c_noise [N] → embedding [N, 4·channels], float32."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        forced, width = settings.weights == "forced", 4 * settings.channels
        self.ops = operations(settings)
        self.fourier = Fourier(settings.channels, self.ops.fourier)
        self.linear1 = Linear(settings.channels, width, forced=forced)
        self.linear2 = Linear(width, width, forced=forced) if settings.norm == "group" else None

    def forward(self, c_noise: Tensor) -> Tensor:
        y = self.ops.silu(self.linear1(self.fourier(c_noise)))
        if self.linear2 is not None:
            y = self.ops.silu(self.linear2(y))
        return y


class Attention(nn.Module):
    """One head over all pixels: softmax(q·k/√C) v with q, k, v normalised over the channels."""

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        forced = settings.weights == "forced"
        self.qkv = Conv(channels, 3 * channels, 1, forced=forced)
        self.output = Conv(channels, channels, 1, forced=forced)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (pixel_norm(y).flatten(2).mT[:, None] for y in self.qkv(x).chunk(3, dim=1))  # [N, 1, H·W, C]
        y: Tensor = self.output(F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape))
        return y


class Block(nn.Module):
    """What all residual blocks share: x [N, inputs, H, W], embedding → [N, outputs, H', W']. Subclasses say how the two branches run."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        settings: NetworkSettings,
        *,
        resample: Callable[[Tensor], Tensor] = same,
        attention: bool = False,
        takes_skip: bool = False,
    ) -> None:
        super().__init__()
        forced = settings.weights == "forced"
        self.ops, self.clip, self.dropout = operations(settings), settings.clip, settings.dropout
        self.resample, self.takes_skip = resample, takes_skip
        self.embed = Linear(4 * settings.channels, outputs, forced=forced)
        self.gain = nn.Parameter(torch.ones(())) if settings.magnitude_preserving else None
        self.skip = Conv(inputs, outputs, 1, forced=forced) if inputs != outputs else nn.Identity()
        self.conv1 = Conv(self.conv1_inputs(inputs, outputs), outputs, 3, forced=forced)
        self.conv2 = Conv(outputs, outputs, 3, forced=forced)
        self.attention = Attention(outputs, settings) if attention else None

    @staticmethod
    def conv1_inputs(inputs: int, outputs: int) -> int:
        return inputs

    def branches(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The main and the residual branch, both [N, outputs, H', W']."""
        raise NotImplementedError

    def modulate(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x · (1 + gain · W emb), channel by channel; the gain only where magnitudes are preserved."""
        scale: Tensor = self.embed(embedding)
        scale = 1 + (scale if self.gain is None else self.gain * scale)
        return x * scale[:, :, None, None].to(x.dtype)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        main, residual = self.branches(x, embedding)
        y = self.ops.sum(main, residual, BALANCE)
        if self.attention is not None:
            y = self.ops.sum(y, self.attention(y), BALANCE)
        return y if self.clip is None else y.clamp(-self.clip, self.clip)


class GroupNormBlock(Block):
    """Encoder and decoder block up to config E: normalised before each convolution, resampled in both branches."""

    def branches(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv1(self.resample(self.ops.silu(group_norm(x))))
        y = self.ops.silu(self.modulate(group_norm(y), embedding))
        return self.skip(self.resample(x)), self.conv2(self.drop(y))


class PixelNormEncoderBlock(Block):
    """Encoder block from config F on: the main branch is resampled, projected and normalised before the residual leaves it."""

    @staticmethod
    def conv1_inputs(inputs: int, outputs: int) -> int:
        return outputs

    def branches(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        main = pixel_norm(self.skip(self.resample(x)))
        y = self.ops.silu(self.modulate(self.conv1(self.ops.silu(main)), embedding))
        return main, self.conv2(self.drop(y))


class PixelNormDecoderBlock(Block):
    """Decoder block from config F on: no normalisation, the main branch is projected after the residual has left it."""

    def branches(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        x = self.resample(x)
        y = self.ops.silu(self.modulate(self.conv1(self.ops.silu(x)), embedding))
        return self.skip(x), self.conv2(self.drop(y))


class Head(nn.Module):
    """The last features [N, channels, H, W] → [N, image channels, H, W]."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.normalized = settings.norm == "group"
        self.conv = Conv(settings.channels, settings.image_channels, 3, forced=settings.weights == "forced")
        self.gain = nn.Parameter(torch.zeros(())) if settings.magnitude_preserving else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.silu(group_norm(x, 8)) if self.normalized else x)
        return y if self.gain is None else y * self.gain


class UNet(nn.Module):
    """F(x; c_noise): [N, C, H, W] and [N] → [N, C, H, W]."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings, self.ops = settings, operations(settings)
        encoder_block = GroupNormBlock if settings.norm == "group" else PixelNormEncoderBlock
        decoder_block = GroupNormBlock if settings.norm == "group" else PixelNormDecoderBlock
        widths = [settings.channels * multiplier for multiplier in settings.multipliers]
        attends = [settings.resolution >> level in settings.attention_resolutions for level in range(len(widths))]

        self.embedding = Embedding(settings)
        self.stem = Conv(settings.image_channels + 1, settings.channels, 3, forced=settings.weights == "forced")
        width = settings.channels
        skips = [width]
        encoder: list[Block] = []
        for level, (outputs, attention) in enumerate(zip(widths, attends, strict=True)):
            for _ in range(settings.blocks - 1):
                encoder.append(encoder_block(width, outputs, settings, attention=attention))
                skips.append(width := outputs)
            if level < len(widths) - 1:
                encoder.append(encoder_block(width, width, settings, resample=down))
                skips.append(width)
        self.encoder = nn.ModuleList(encoder)
        self.middle = nn.ModuleList([encoder_block(width, width, settings, attention=True), encoder_block(width, width, settings)])

        decoder: list[Block] = []
        for level in reversed(range(len(widths))):
            for _ in range(settings.blocks):
                decoder.append(decoder_block(width + skips.pop(), widths[level], settings, attention=attends[level], takes_skip=True))
                width = widths[level]
            if level > 0:
                decoder.append(decoder_block(width, width, settings, resample=up))
        self.decoder = nn.ModuleDict({f"out_{number}": block for number, block in enumerate(decoder, start=1)})
        self.head = Head(settings)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The decoder's blocks in the order they run."""
        return tuple(self.decoder)

    def decode(self, x: Tensor, c_noise: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each decoder block's name and output [N, C_k, H_k, W_k]; a block runs only when it is asked for."""
        embedding = self.embedding(c_noise)
        x = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for block in self.encoder:
            x = block(x, embedding)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for name, block in self.decoder.items():
            x = block(self.ops.cat(x, skips.pop(), 0.5) if block.takes_skip else x, embedding)
            yield name, x

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        for _, last in self.decode(x, c_noise):  # noqa: B007
            pass
        y: Tensor = self.head(last)
        return y

    def features(self, x: Tensor, c_noise: Tensor, blocks: Collection[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named decoder blocks (None: all), each averaged over its pixels: {name: [N, C_k]}, float32.

        Nothing after the last named block is computed. Raises InputError for a name that is not a decoder block.
        """
        wanted = set(self.block_names if blocks is None else blocks)
        if unknown := wanted - set(self.block_names):
            raise InputError(
                f"The network has no block named {', '.join(sorted(unknown))}.",
                do_next=f"Choose among out_1 … out_{len(self.decoder)}.",
            )
        pooled: dict[str, Tensor] = {}
        outputs = self.decode(x, c_noise)
        while len(pooled) < len(wanted):
            name, y = next(outputs)
            if name in wanted:
                pooled[name] = y.float().mean(dim=(2, 3))
        return pooled
