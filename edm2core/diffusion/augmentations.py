"""EDM's augmentation: training images are moved about at random, and the network is told how, so that its samples are not.

Karras et al. 2022 (arXiv 2206.00364), appendix F.2, after Karras et al. 2020 (arXiv 2006.06676). `AUGMENTATIONS` in edm2core/registry.py
lists the transforms, in the order in which images go through them. A new one is a `Transform` and a line there.
"""

import math
from collections.abc import Callable
from functools import cache, reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edm2core.config.settings import AugmentSettings
from edm2core.diffusion.devices import sent
from edm2core.diffusion.layers import mirrored
from edm2core.registry import AUGMENTATIONS, load

Array = NDArray[np.float64]
LOG2_SCALE = 0.2  # standard deviation of log2 of a scale, and of a stretch
TRANSLATION = 0.125  # standard deviation of a translation, in sides
ROTATED_STRETCHES = 0.5  # share of the stretches that are along any direction; the others are along the rows
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
"""The scaling filter of the symlet with six vanishing moments (Daubechies, Ten Lectures on Wavelets, table 6.3), of sum √2."""
CENTRE = 5  # the filter's largest number lies on its pixel
MARGIN = 3  # pixels around the new image whose wavelets reach into it
HELD = 64  # images at once


class Drawn(NamedTuple):
    """What is drawn for a batch of N images."""

    labels: Array  # [N, labels], what the network is told; 0 for an image that stays as it is
    inverse: Array  # [N, 3, 3]: from a place in the new image to that in the old one, origin in the centre, the side of an image as unit


Transform = Callable[[np.random.Generator, int, float], Drawn]
"""(random, count, probability) → what happens to each of `count` images, which it leaves alone with probability 1 - `probability`."""


class Augmentation(NamedTuple):
    """What happens to each of N images, and what the network is told of it."""

    labels: Array  # [N, labels of all transforms]
    mirrored: NDArray[np.bool_]  # [N, 2], left to right and top to bottom
    inverse: Array  # [N, 3, 3], as in `Drawn`, of all that follows the mirroring


def augmentation(settings: AugmentSettings, seed: Callable[[str], int], count: int) -> Augmentation:
    """The augmentation of a batch. `seed` gives each transform's seed by its name, so that leaving one out changes no other."""
    drawn = {}
    for name in settings.transforms:
        transform: Transform = load(AUGMENTATIONS[name].draw)
        drawn[name] = transform(np.random.Generator(np.random.Philox(seed(name))), count, settings.probability)

    def together(exact: bool) -> Array:
        matrices = [each.inverse for name, each in drawn.items() if AUGMENTATIONS[name].mirrors == exact]
        return reduce(np.matmul, matrices, np.tile(np.eye(3), (count, 1, 1)))

    labels = np.concatenate([each.labels for each in drawn.values()], axis=1)
    return Augmentation(labels, together(exact=True)[:, [0, 1], [0, 1]] < 0, together(exact=False))


def augmented(images: Tensor, how: Augmentation) -> Tensor:
    """The augmented images [N, C, S, S]. One that is not moved keeps its bits, and one that is only mirrored has the same pixels."""
    which = sent(torch.from_numpy(how.mirrored), images.device)
    for number, axis in enumerate((3, 2)):
        images = mirrored(images, which[:, number], axis)
    moved = np.flatnonzero((how.inverse != np.eye(3)).any(axis=(1, 2)))
    if not len(moved):
        return images
    index, inverse = (sent(torch.from_numpy(each), images.device) for each in (moved, how.inverse[moved]))
    return images.index_copy(0, index, resampled(images[index], inverse))


def resampled(images: Tensor, inverse: Tensor) -> Tensor:
    """Images [N, C, S, S] moved so that a place p shows what lay at `inverse` p; float64 [N, 3, 3], origin in the centre, unit S.

    They are resampled at twice their resolution between the two halves of an orthogonal wavelet (Karras et al. 2020, appendix B.2). Beyond
    its edges an image goes on as its mirror image, and beyond that as zero. All is float64, which neither TF32 nor the batch changes.
    """
    side = images.shape[-1]
    finer, coarser = _filters(side, images.device)
    given, wanted = len(finer), coarser.shape[1]
    turn, shift = inverse[:, :2, :2], inverse[:, :2, 2:] * side
    # At twice the resolution pixel i has its centre at 2i, half a step before the middle of the two that it became.
    shift = 2 * shift + 0.5 * turn.sum(2, keepdim=True) - 0.5
    maps = torch.cat([turn * (wanted / given), shift * (2 / given)], dim=2)  # both images from -1 to 1, as torch has it
    parts = []
    for some, how in zip(torch.split(images, HELD), torch.split(maps, HELD), strict=True):
        grid = F.affine_grid(how, [len(some), some.shape[1], wanted, wanted], align_corners=False)
        fine = F.grid_sample(finer @ some.double() @ finer.mT, grid, "bilinear", "zeros", align_corners=False)
        parts.append((coarser @ fine @ coarser.mT).to(images.dtype))
    return torch.cat(parts)


@cache
def _filters(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What brings a row of pixels, mirrored at both ends, to twice the resolution: [2 (3 side - 2), side]; and back: [side, 2 (side + 6)].

    The row that is brought back has `MARGIN` pixels more at both ends.
    """
    mirrored = np.pad(np.eye(side), ((side - 1, side - 1), (0, 0)), "reflect")
    finer, coarser = _wavelets(len(mirrored)) @ mirrored, _wavelets(side + 2 * MARGIN).T[MARGIN:-MARGIN].copy()
    return sent(torch.from_numpy(finer), device), sent(torch.from_numpy(coarser), device)


def _wavelets(pixels: int) -> Array:
    """[2 pixels, pixels]: each pixel's filter at twice the resolution."""
    matrix = np.zeros((2 * pixels + len(SYM6), pixels))
    for pixel in range(pixels):
        matrix[2 * pixel : 2 * pixel + len(SYM6), pixel] = SYM6
    return matrix[CENTRE : CENTRE + 2 * pixels]


def xflip(random: np.random.Generator, count: int, probability: float) -> Drawn:
    """Left and right exchanged in half of all images, whatever the probability, as in EDM's trainings. Label: 1."""
    return _mirrored(random.random(count) < 0.5, 0)


def yflip(random: np.random.Generator, count: int, probability: float) -> Drawn:
    """Top and bottom exchanged in half of the images that it happens to. Label: 1."""
    happens = random.random(count) < probability
    return _mirrored(happens & (random.random(count) < 0.5), 1)


def scale(random: np.random.Generator, count: int, probability: float) -> Drawn:
    """Larger by the factor 2^(0.2 w), w ~ N(0, 1). Label: w."""
    w = np.where(random.random(count) < probability, random.standard_normal(count), 0)
    return Drawn(w[:, None], _scaling(2 ** (-LOG2_SCALE * w), 2 ** (-LOG2_SCALE * w)))


def rotate(random: np.random.Generator, count: int, probability: float) -> Drawn:
    """Turned counter-clockwise by the angle w ~ U(-π, π). Labels: cos w - 1 and sin w."""
    w = np.where(random.random(count) < probability, random.uniform(-math.pi, math.pi, count), 0)
    return Drawn(np.stack([np.cos(w) - 1, np.sin(w)], axis=1), _rotation(w))


def aniso(random: np.random.Generator, count: int, probability: float) -> Drawn:
    """Stretched by 2^(0.2 w) in the direction r and by its inverse across it, w ~ N(0, 1). Labels: w cos r and w sin r.

    The direction is the angle r from the right, counter-clockwise: U(-π, π), or 0 in half of the images.
    """
    w = np.where(random.random(count) < probability, random.standard_normal(count), 0)
    directed = random.random(count) < ROTATED_STRETCHES
    r = np.where(directed, random.uniform(-math.pi, math.pi, count), 0)
    inverse = _rotation(-r) @ _scaling(2 ** (-LOG2_SCALE * w), 2 ** (LOG2_SCALE * w)) @ _rotation(r)
    inverse[w == 0] = np.eye(3)  # to the bit
    return Drawn(np.stack([w * np.cos(r), w * np.sin(r)], axis=1), inverse)


def translate(random: np.random.Generator, count: int, probability: float) -> Drawn:
    """Moved right and down by w/8 of a side each, w ~ N(0, 1). Labels: both w."""
    happens = random.random((count, 1)) < probability
    w = np.where(happens, random.standard_normal((count, 2)), 0)
    inverse = np.tile(np.eye(3), (count, 1, 1))
    inverse[:, :2, 2] -= TRANSLATION * w
    return Drawn(w, inverse)


def _mirrored(which: NDArray[np.bool_], axis: int) -> Drawn:
    inverse = np.tile(np.eye(3), (len(which), 1, 1))
    inverse[which, axis, axis] = -1
    return Drawn(which[:, None].astype(np.float64), inverse)


def _scaling(x: Array, y: Array) -> Array:
    matrices = np.tile(np.eye(3), (len(x), 1, 1))
    matrices[:, 0, 0], matrices[:, 1, 1] = x, y
    return matrices


def _rotation(angle: Array) -> Array:
    matrices, cos, sin = np.tile(np.eye(3), (len(angle), 1, 1)), np.cos(angle), np.sin(angle)
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1] = cos, -sin, sin, cos
    return matrices
