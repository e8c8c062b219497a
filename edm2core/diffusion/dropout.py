"""Dropout by key: the mask of an image depends only on the training's seed, the step, the image's number in the batch and the layer.

Integer arithmetic makes the masks. They are the same on every device, however a batch is cut into processes and micro-batches.
"""

import torch
from torch import Tensor

LAYERS = 1 << 16  # the most layers that an image has keys for


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


_STEP, _MIX1, _MIX2 = (_signed(c, 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_HASH1, _HASH2 = (_signed(c, 32) for c in (0x7FEB352D, 0x846CA68B))


def dropout_keys(seed: int, images: int, layers: int, device: torch.device) -> Tensor:
    """Keys of a batch of images: int32 [images, layers, 2], 64 random bits for each layer. `seed`, in [0, 2^63), names the batch.

    They are SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) of the image's and the layer's number.
    """
    image, layer = torch.arange(images, device=device)[:, None], torch.arange(layers, device=device)
    bits = (image * LAYERS + layer) * _STEP + seed
    bits = (bits ^ (bits >> 30)) * _MIX1
    bits = (bits ^ (bits >> 27)) * _MIX2
    return (bits ^ (bits >> 31)).view(torch.int32).view(images, layers, 2)


def dropout(x: Tensor, rate: float, keys: Tensor) -> Tensor:
    """x [N, C, H, W] with each element dropped with probability `rate`, to within 2^-32, and the others multiplied by 1 / (1 - rate).

    `keys`, int32 [N, 2], are those of this layer. The number of an element in its image is hashed by two multiplications and two shifts
    (lowbias32: Chris Wellons, "Prospecting for hash functions", 2018), with one half of the image's key going in before each.
    """
    _, channels, height, width = x.shape
    element = torch.arange(channels * height * width, dtype=torch.int32, device=x.device)
    element = element.view(1, height, width, channels).permute(0, 3, 1, 2)  # numbered as channels_last lays them out
    bits = (keys[:, 0, None, None, None] ^ element).mul_(_HASH1)
    bits.bitwise_xor_(bits >> 15).bitwise_xor_(keys[:, 1, None, None, None]).mul_(_HASH2)
    bits.bitwise_xor_(bits >> 16)  # the sign is shifted in, so that 31 bits are left, none of them the sign
    return torch.where(bits >= round(rate * 2**31), x * (1 / (1 - rate)), 0.0)
