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

    The encoder goes level by level, and each level but the first begins with a block that halves the side. Two blocks follow in the middle.
    The decoder goes back through the levels, and each but the first of them begins with a block that doubles the side.
    """
    levels = [(settings.channels * multiplier, settings.resolution >> level) for level, multiplier in enumerate(settings.multipliers)]
    width, encoder, decoder = settings.channels, list[BlockSpec](), list[BlockSpec]()
    for outputs, side in levels:
        if encoder:
            encoder.append(BlockSpec("encoder", str(len(encoder)), "encoder", width, width, side, resample="down"))
        for _ in range(settings.blocks - 1):
            attends = side in settings.attention_resolutions
            encoder.append(BlockSpec("encoder", str(len(encoder)), "encoder", width, outputs, side, attention=attends))
            width = outputs
    middle = [BlockSpec("middle", str(number), settings.middle, width, width, side, attention=number == 0) for number in range(2)]
    skips = [settings.channels, *(block.outputs for block in encoder)]
    for outputs, side in reversed(levels):
        if decoder:
            decoder.append(BlockSpec("decoder", f"out_{len(decoder) + 1}", "decoder", width, width, side, resample="up"))
        for _ in range(settings.blocks):
            name, skip, attends = f"out_{len(decoder) + 1}", skips.pop(), side in settings.attention_resolutions
            decoder.append(BlockSpec("decoder", name, "decoder", width + skip, outputs, side, attention=attends, skip=skip))
            width = outputs
    return encoder + middle + decoder


def block_widths(settings: NetworkSettings) -> dict[str, int]:
    """Output channels of each decoder block, out_1, out_2, … in the order they run: what the probe sees of them."""
    return {block.name: block.outputs for block in layout(settings) if block.part == "decoder"}


def embedding_width(settings: NetworkSettings) -> int:
    """Channels of the embedding of noise level and class."""
    return settings.channels * (4 if settings.embedding_width == "fourfold" else max(settings.multipliers))
