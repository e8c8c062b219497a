"""The transforms of EDM's augmentation (arXiv 2206.00364, appendix F.2). Numbers that it does not name there are its code's."""

import math

import numpy as np
from numpy.typing import NDArray

from edm2core.diffusion.augmentations import Array, Drawn

LOG2_SCALE = 0.2  # standard deviation of log2 of a scale, and of a stretch
TRANSLATION = 0.125  # standard deviation of a translation, in sides
ROTATED_STRETCHES = 0.5  # share of the stretches that are along any direction; the others are along the rows


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
