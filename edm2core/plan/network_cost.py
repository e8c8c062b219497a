"""What a network costs, counted from its settings alone: floating-point operations and learned numbers. Pure, and no torch."""

from collections.abc import Iterator
from typing import NamedTuple

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.diffusion.layout import BlockSpec, embedding_width, layout


class Cost(NamedTuple):
    """A network's floating-point operations for one image's forward pass (a multiply-add counts as two), and its parameters."""

    flops: int = 0
    parameters: int = 0


def network_cost(network: NetworkSettings, diffusion: DiffusionSettings) -> Cost:
    """One evaluation of the denoiser for one image: convolutions, matrices and attention, as torch's counter counts them.

    Normalisations, activations and resampling are left out of the operations: they are a few percent and bound by memory.
    """
    blocks = (cost for block in layout(network) for cost in _block(block, network))
    costs = [*_embedding(network), *blocks, *_ends(network)]
    if diffusion.log_variance_features:
        costs.append(Cost(0, diffusion.log_variance_features))  # asked for only by the loss
    return Cost(sum(cost.flops for cost in costs), sum(cost.parameters for cost in costs))


def _map(inputs: int, outputs: int, network: NetworkSettings, *, kernel: int = 1, pixels: int = 1, bias: bool = True) -> Cost:
    weights = inputs * outputs * kernel**2
    return Cost(2 * weights * pixels, weights + (outputs if bias and network.biases else 0))


def _norm(channels: int, network: NetworkSettings) -> Cost:
    return Cost(0, 2 * channels if network.norm == "group_affine" else 0)


def _embedding(network: NetworkSettings) -> Iterator[Cost]:
    width = embedding_width(network)
    yield _map(network.channels, width, network)
    if network.norm != "pixel":
        yield _map(width, width, network)
    if network.augment_labels:
        yield _map(network.augment_labels, network.channels, network, bias=False)
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


def _block(block: BlockSpec, network: NetworkSettings) -> Iterator[Cost]:
    """One residual block, whose convolutions all run at its output's side."""
    inputs, outputs, pixels, grouped = block.inputs, block.outputs, block.side**2, network.norm != "pixel"
    yield _map(embedding_width(network), outputs * (2 if network.conditioning == "scale_and_shift" else 1), network)
    if inputs != outputs:
        yield _map(inputs, outputs, network, pixels=pixels)
    yield _map(outputs if block.kind == "encoder" and not grouped else inputs, outputs, network, kernel=3, pixels=pixels)
    yield _map(outputs, outputs, network, kernel=3, pixels=pixels)
    if grouped:
        yield _norm(inputs, network)
        yield _norm(outputs, network)
    if network.magnitude_preserving:
        yield Cost(0, 1)
    if block.attention:
        yield _map(outputs, 3 * outputs, network, pixels=pixels)
        yield _map(outputs, outputs, network, pixels=pixels)
        yield Cost(4 * pixels**2 * outputs)
        if network.attention_norm == "group":
            yield _norm(outputs, network)
