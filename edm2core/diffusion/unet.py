"""One U-Net; the configs A to G, as FutureXiang/edm2 or the paper builds them, are switches of its settings (EDM2, section 2)."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.dropout import dropout
from edm2core.diffusion.layers import (
    BALANCE,
    EVEN,
    MAGNITUDE_PRESERVING,
    PLAIN,
    Conv,
    Fourier,
    GroupNorm,
    Learned,
    Linear,
    Operations,
    Positional,
    Table,
    down,
    pixel_norm,
    up,
)
from edm2core.diffusion.layout import BlockSpec, embedding_width, layout
from edm2core.errors import InputError


def operations(settings: NetworkSettings) -> Operations:
    return MAGNITUDE_PRESERVING if settings.magnitude_preserving else PLAIN


def learned(settings: NetworkSettings) -> Learned:
    return Learned(settings.weights, settings.init, settings.biases)


def group_norm(channels: int, settings: NetworkSettings, groups: int = 32) -> nn.Module:
    """The settings' group norm, or nothing where they have none."""
    return nn.Identity() if settings.norm == "pixel" else GroupNorm(channels, settings.norm, groups)


class Embedding(nn.Module):
    """c_noise [N], and classes [N] or none, → embedding [N, width], float32. Without classes the class part is zero.

    Augmentation labels, [N, labels] or none, are added to the noise level's features, as in EDM. Without them theirs is zero too.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        maps, width, features = learned(settings), embedding_width(settings), settings.channels
        self.ops, self.classes = operations(settings), settings.classes
        self.fourier = Fourier(features, self.ops.fourier) if settings.noise_features == "fourier" else Positional(features)
        self.linear1 = Linear(features, width, maps)
        self.linear2 = Linear(width, width, maps) if settings.norm != "pixel" else None
        self.label = Table(self.classes, width, replace(maps, biases=False)) if self.classes else None
        told = settings.augment_labels
        self.augment = Linear(told, features, replace(maps, biases=False)) if told else None

    def forward(self, c_noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        y: Tensor = self.fourier(c_noise)
        if self.augment is not None and augment is not None:
            y = y + self.augment(augment)
        y = self.linear1(y)
        if self.linear2 is not None:
            y = self.linear2(self.ops.silu(y))
        if self.label is not None:
            y = self.ops.sum(y, torch.zeros_like(y) if labels is None else self.of_class(labels), EVEN)
        return self.ops.silu(y)

    def of_class(self, labels: Tensor) -> Tensor:
        """The class part [N, width], from √classes · one-hot, which has unit variance (as in NVlabs/edm2). It is zero for any class."""
        y: Tensor = self.label(F.one_hot(labels, self.classes + 1)[:, :-1] * math.sqrt(self.classes))  # type: ignore[misc]
        return y


class Attention(nn.Module):
    """Self-attention over all pixels: softmax(q·k/√d) v, with d channels in each head."""

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.heads = channels // (settings.attention_head_channels or channels)
        self.cosine, self.epsilon = settings.attention_norm == "pixel", settings.pixel_epsilon
        self.norm = nn.Identity() if self.cosine else group_norm(channels, settings)
        self.qkv = Conv(channels, 3 * channels, 1, learned(settings))
        self.output = Conv(channels, channels, 1, learned(settings), ends=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.pixels(y) for y in self.qkv(self.norm(x)).chunk(3, dim=1))
        y: Tensor = self.output(F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape))
        return y

    def pixels(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, heads, H·W, d]. In cosine attention each pixel of a head gets unit magnitude over its d channels."""
        y = x.reshape(len(x), self.heads, -1, x[0, 0].numel())
        return (pixel_norm(y, self.epsilon, dim=2) if self.cosine else y).mT


RESAMPLING: dict[str | None, Callable[[Tensor], Tensor]] = {None: nn.Identity(), "down": down, "up": up}


class Block(nn.Module):
    """A residual block: x [N, inputs, H, W] and embedding [N, width] → [N, outputs, H', W']. Subclasses define its two branches."""

    def __init__(self, spec: BlockSpec, number: int, settings: NetworkSettings) -> None:
        super().__init__()
        maps, inputs, outputs = learned(settings), spec.inputs, spec.outputs
        self.spec, self.number = spec, number  # its number among the network's blocks in the order they run
        self.ops, self.clip, self.dropout, self.epsilon = operations(settings), settings.clip, settings.dropout, settings.pixel_epsilon
        self.projects_first = settings.norm == "pixel" and spec.kind == "encoder"  # before the residual leaves the main branch
        self.resample = RESAMPLING[spec.resample]
        self.shifts = settings.conditioning == "scale_and_shift"
        self.embed = Linear(embedding_width(settings), 2 * outputs if self.shifts else outputs, maps)
        self.gain = nn.Parameter(torch.tensor(settings.embedding_gain)) if settings.magnitude_preserving else None
        self.skip = Conv(inputs, outputs, 1, maps) if inputs != outputs else nn.Identity()
        self.conv1 = Conv(outputs if self.projects_first else inputs, outputs, 3, maps)
        self.conv2 = Conv(outputs, outputs, 3, maps, ends=True)
        self.attention = Attention(outputs, settings) if spec.attention else None

    def branches(self, x: Tensor, embedding: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """The main and the residual branch, both [N, outputs, H', W']."""
        raise NotImplementedError

    def modulate(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x · (1 + gain · W emb) in each channel. Only magnitude-preserving networks have the gain. ADM's also add a shift."""
        scale: Tensor = self.embed(embedding)[:, :, None, None]
        if self.shifts:
            scale, shift = scale.chunk(2, dim=1)
            return x * (1 + scale).to(x.dtype) + shift.to(x.dtype)
        return x * (1 + (scale if self.gain is None else self.gain * scale)).to(x.dtype)

    def drop(self, x: Tensor, keys: Tensor | None) -> Tensor:
        return x if keys is None else dropout(x, self.dropout, keys[:, self.number])

    def forward(self, x: Tensor, embedding: Tensor, keys: Tensor | None = None) -> Tensor:
        y = self.ops.sum(*self.branches(x, embedding, keys), BALANCE)
        if self.attention is not None:
            y = self.ops.sum(y, self.attention(y), BALANCE)
        return y if self.clip is None else y.clamp(-self.clip, self.clip)


class GroupNormBlock(Block):
    """Encoder and decoder block up to config E: normalised before each convolution, resampled in both branches."""

    def __init__(self, spec: BlockSpec, number: int, settings: NetworkSettings) -> None:
        super().__init__(spec, number, settings)
        self.norm1, self.norm2 = (group_norm(channels, settings) for channels in (spec.inputs, spec.outputs))

    def branches(self, x: Tensor, embedding: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        y = self.conv1(self.resample(self.ops.silu(self.norm1(x))))
        y = self.ops.silu(self.modulate(self.norm2(y), embedding))
        return self.skip(self.resample(x)), self.conv2(self.drop(y, keys))


class PixelNormBlock(Block):
    """Block from config F on, resampled before its branches part.

    The encoder's main branch is projected and normalised before the residual leaves it, the decoder's is projected after that.
    """

    def branches(self, x: Tensor, embedding: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.resample(x)
        if self.projects_first:
            x = pixel_norm(self.skip(x), self.epsilon)
        y = self.ops.silu(self.modulate(self.conv1(self.ops.silu(x)), embedding))
        return x if self.projects_first else self.skip(x), self.conv2(self.drop(y, keys))


class Head(nn.Module):
    """The last features [N, channels, H, W] → [N, image channels, H, W]."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.normalized = settings.norm != "pixel"
        self.norm = group_norm(settings.channels, settings, groups=8 if settings.norm == "group" else 32)  # 8 is FutureXiang/edm2's
        self.conv = Conv(settings.channels, settings.image_channels, 3, learned(settings), ends=True)
        self.gain = nn.Parameter(torch.zeros(())) if settings.magnitude_preserving else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.silu(self.norm(x)) if self.normalized else x)
        return y if self.gain is None else y * self.gain


class UNet(nn.Module):
    """F(x; c_noise): [N, C, H, W] and [N] → [N, C, H, W].

    A class-conditional network takes `labels`, int64 [N]. None, or the label `classes`, means any class.
    One that is told of augmentation takes `augment`, [N, augmentation labels]. None means that the images are as they were.
    Dropout needs `keys`, int32 [N, blocks, 2], from `dropout_keys`. Without them nothing is dropped.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings, self.ops = settings, operations(settings)
        self.embedding = Embedding(settings)
        self.stem = Conv(settings.image_channels + (not settings.biases), settings.channels, 3, learned(settings))
        build = PixelNormBlock if settings.norm == "pixel" else GroupNormBlock
        blocks = [build(spec, number, settings) for number, spec in enumerate(layout(settings))]
        self.encoder, self.middle = (nn.ModuleList(b for b in blocks if b.spec.part == part) for part in ("encoder", "middle"))
        self.decoder = nn.ModuleDict({b.spec.name: b for b in blocks if b.spec.part == "decoder"})
        self.head = Head(settings)
        self.checkpointed = False  # in training, recompute each block's activations in the backward instead of keeping them
        self.fast: tuple[int, Callable[..., Tensor]] | None = None  # a batch size, and `evaluate` compiled for it

    @property
    def blocks(self) -> list[Block]:
        """All blocks in the order they run."""
        return [block for part in (self.encoder, self.middle, self.decoder.values()) for block in part if isinstance(block, Block)]

    def _run(self, block: Block, x: Tensor, embedding: Tensor, skips: list[Tensor], keys: Tensor | None) -> Tensor:
        """A block's output. A block that takes a skip gets the last of the list, concatenated to its input."""
        skip = skips.pop() if block.spec.skip else None

        def run(x: Tensor, skip: Tensor | None, embedding: Tensor, keys: Tensor | None) -> Tensor:
            y: Tensor = block(x if skip is None else self.ops.cat(x, skip, EVEN), embedding, keys)
            return y

        if not (self.checkpointed and torch.is_grad_enabled()):
            return run(x, skip, embedding, keys)
        y: Tensor = checkpoint(run, x, skip, embedding, keys, use_reentrant=False, preserve_rng_state=False)  # nothing random in it
        return y

    def decode(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, keys: Tensor | None = None, augment: Tensor | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Each decoder block's name and output [N, C_k, H_k, W_k]; a block runs only when it is asked for."""
        embedding = self.embedding(c_noise, labels, augment)
        x = self.stem(x if self.settings.biases else torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for block in self.blocks:
            x = self._run(block, x, embedding, skips, keys)
            if block.spec.part == "encoder":
                skips.append(x)
            if block.spec.part == "decoder":
                yield block.spec.name, x

    @property
    def block_names(self) -> tuple[str, ...]:
        """The blocks that have features, in the order they run: the decoder's."""
        return tuple(self.decoder)

    def forward(self, x: Tensor, c_noise: Tensor, *told: Tensor | None) -> Tensor:
        """F, from what `decode` takes."""
        size, fast = self.fast or (0, self.evaluate)
        return (fast if len(x) == size else self.evaluate)(x, c_noise.contiguous(), *told)

    def evaluate(self, x: Tensor, c_noise: Tensor, *told: Tensor | None) -> Tensor:
        """What `forward` gives, without anything compiled."""
        for _, last in self.decode(x, c_noise, *told):  # noqa: B007
            pass
        y: Tensor = self.head(last)
        return y

    def features(self, x: Tensor, c_noise: Tensor, blocks: Collection[str] | None = None) -> dict[str, Tensor]:
        """What `Denoiser.features` says, without a class."""
        wanted = set(self.decoder if blocks is None else blocks)
        if unknown := wanted - set(self.decoder):
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
