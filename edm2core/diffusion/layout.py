"""The U-Net's layout as plain data: its residual blocks in the order they run. It imports no torch, since planning counts costs by it."""

from dataclasses import dataclass
from typing import Literal

from edm2core.config.settings import NetworkSettings


@dataclass(frozen=True)
class BlockSpec:
    """One residual block: [N, inputs, H, W] → [N, outputs, side, side].

    `kind` says in which order its two branches run: as the encoder's blocks or as the decoder's. `skip` is how many of the input channels
    come from the encoder. They are the output of its last block, or of the first convolution, that no decoder block has used yet.
    """

    part: Literal["encoder", "middle", "decoder"]
    name: str  # within its part, as in the U-Net's state dict: 0, 1, … or, in the decoder, out_1, out_2, …
    kind: Literal["encoder", "decoder"]
    inputs: int
    outputs: int
    side: int  # of the output, pixels
    resample: Literal["down", "up"] | None = None
    attention: bool = False
    skip: int = 0


def layout(settings: NetworkSettings) -> list[BlockSpec]:
    """All blocks in the order they run.

    The encoder goes level by level, and each level but the lowest ends in a block that halves the side. Two blocks follow in the middle.
    The decoder goes back through the levels, and each but the highest ends in a block that doubles the side.
    """
    return _encoder(settings) + _middle(settings) + _decoder(settings)


def _encoder(settings: NetworkSettings) -> list[BlockSpec]:
    width, blocks = settings.channels, list[BlockSpec]()
    for level, outputs in enumerate(_widths(settings)):
        side = settings.resolution >> level
        for _ in range(settings.blocks - 1):
            attends = side in settings.attention_resolutions
            blocks.append(BlockSpec("encoder", str(len(blocks)), "encoder", width, outputs, side, attention=attends))
            width = outputs
        if level < len(settings.multipliers) - 1:
            blocks.append(BlockSpec("encoder", str(len(blocks)), "encoder", width, width, side // 2, resample="down"))
    return blocks


def _middle(settings: NetworkSettings) -> list[BlockSpec]:
    width, side = _widths(settings)[-1], settings.resolution >> (len(settings.multipliers) - 1)
    return [BlockSpec("middle", str(number), settings.middle, width, width, side, attention=number == 0) for number in range(2)]


def _decoder(settings: NetworkSettings) -> list[BlockSpec]:
    skips = [settings.channels, *(block.outputs for block in _encoder(settings))]
    widths, blocks = _widths(settings), list[BlockSpec]()
    width = widths[-1]
    for level, outputs in reversed(list(enumerate(widths))):
        side = settings.resolution >> level
        for _ in range(settings.blocks):
            name, skip, attends = f"out_{len(blocks) + 1}", skips.pop(), side in settings.attention_resolutions
            blocks.append(BlockSpec("decoder", name, "decoder", width + skip, outputs, side, attention=attends, skip=skip))
            width = outputs
        if level > 0:
            blocks.append(BlockSpec("decoder", f"out_{len(blocks) + 1}", "decoder", width, width, 2 * side, resample="up"))
    return blocks


def _widths(settings: NetworkSettings) -> list[int]:
    """Channels of each level."""
    return [settings.channels * multiplier for multiplier in settings.multipliers]


def block_widths(settings: NetworkSettings) -> dict[str, int]:
    """Output channels of each decoder block, out_1, out_2, … in the order they run: what the probe sees of them."""
    return {block.name: block.outputs for block in _decoder(settings)}


def block_names(settings: NetworkSettings) -> tuple[str, ...]:
    """The decoder's blocks, as the probe names them."""
    return tuple(block_widths(settings))


def embedding_width(settings: NetworkSettings) -> int:
    """Channels of the embedding of noise level and class."""
    return settings.channels * (4 if settings.embedding_width == "fourfold" else max(settings.multipliers))
