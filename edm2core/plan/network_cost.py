"""What a network costs, counted from its settings alone: floating-point operations and learned numbers. Pure, and no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edm2core.config.settings import DiffusionSettings, NetworkSettings


class Cost(NamedTuple):
    """Of one image's forward: floating-point operations (a multiplication and an addition are two), and learned numbers."""

    flops: int = 0
    parameters: int = 0


def network_cost(network: NetworkSettings, diffusion: DiffusionSettings) -> Cost:
    """One evaluation of the denoiser for one image: convolutions, matrices and attention, as torch's counter counts them.

    Normalisations, activations and resampling are left out of the operations: they are a few percent and bound by memory.
    """
    costs = [*_embedding(network), *_blocks(network), *_ends(network)]
    if diffusion.log_variance_features:
        costs.append(Cost(0, diffusion.log_variance_features))  # asked for only by the loss
    return Cost(sum(cost.flops for cost in costs), sum(cost.parameters for cost in costs))


def block_widths(network: NetworkSettings) -> dict[str, int]:
    """Output channels of each decoder block: what the probe sees of it."""
    levels = reversed(range(len(network.multipliers)))
    widths = [network.channels * network.multipliers[level] for level in levels for _ in range(network.blocks + (level > 0))]
    return dict(zip(network.block_names, widths, strict=True))


def _map(inputs: int, outputs: int, network: NetworkSettings, *, kernel: int = 1, pixels: int = 1, bias: bool = True) -> Cost:
    weights = inputs * outputs * kernel**2
    return Cost(2 * weights * pixels, weights + (outputs if bias and network.biases else 0))


def _norm(channels: int, network: NetworkSettings) -> Cost:
    return Cost(0, 2 * channels if network.norm == "group_affine" else 0)


def _width(network: NetworkSettings) -> int:
    return network.channels * (4 if network.embedding_width == "fourfold" else max(network.multipliers))


def _embedding(network: NetworkSettings) -> Iterator[Cost]:
    width = _width(network)
    yield _map(network.channels, width, network)
    if network.norm != "pixel":
        yield _map(width, width, network)
    if network.classes:
        yield _map(network.classes, width, network, bias=False)


def _ends(network: NetworkSettings) -> Iterator[Cost]:
    pixels = network.resolution**2
    yield _map(network.image_channels + (not network.biases), network.channels, network, kernel=3, pixels=pixels)
    yield _map(network.channels, network.image_channels, network, kernel=3, pixels=pixels)
    if network.norm != "pixel":
        yield _norm(network.channels, network)
    if network.magnitude_preserving:
        yield Cost(0, 1)


def _blocks(network: NetworkSettings) -> Iterator[Cost]:
    """Every block in the order it runs, as the U-Net builds them."""
    widths = [network.channels * multiplier for multiplier in network.multipliers]
    sides = [network.resolution >> level for level in range(len(widths))]
    attends = [side in network.attention_resolutions for side in sides]
    width, skips = network.channels, [network.channels]
    for level, outputs in enumerate(widths):
        for _ in range(network.blocks - 1):
            yield from _block(width, outputs, sides[level], network, "encoder", attends[level])
            skips.append(width := outputs)
        if level < len(widths) - 1:
            yield from _block(width, width, sides[level + 1], network, "encoder")
            skips.append(width)
    yield from _block(width, width, sides[-1], network, network.middle, True)
    yield from _block(width, width, sides[-1], network, network.middle)
    for level in reversed(range(len(widths))):
        for _ in range(network.blocks):
            yield from _block(width + skips.pop(), widths[level], sides[level], network, "decoder", attends[level])
            width = widths[level]
        if level > 0:
            yield from _block(width, width, sides[level - 1], network, "decoder")


def _block(inputs: int, outputs: int, side: int, network: NetworkSettings, kind: str, attention: bool = False) -> Iterator[Cost]:
    """One residual block, whose convolutions all run at `side`."""
    pixels, grouped = side**2, network.norm != "pixel"
    yield _map(_width(network), outputs * (2 if network.conditioning == "scale_and_shift" else 1), network)
    if inputs != outputs:
        yield _map(inputs, outputs, network, pixels=pixels)
    yield _map(outputs if kind == "encoder" and not grouped else inputs, outputs, network, kernel=3, pixels=pixels)
    yield _map(outputs, outputs, network, kernel=3, pixels=pixels)
    if grouped:
        yield _norm(inputs, network)
        yield _norm(outputs, network)
    if network.magnitude_preserving:
        yield Cost(0, 1)
    if attention:
        yield _map(outputs, 3 * outputs, network, pixels=pixels)
        yield _map(outputs, outputs, network, pixels=pixels)
        yield Cost(4 * pixels**2 * outputs)
        if network.attention_norm == "group":
            yield _norm(outputs, network)
