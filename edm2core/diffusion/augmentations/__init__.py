"""EDM's augmentation: training images are moved about at random, and the network is told how, so that its samples are not.

Karras et al. 2022 (arXiv 2206.00364), appendix F.2, after Karras et al. 2020 (arXiv 2006.06676). `AUGMENTATIONS` in edm2core/registry.py
lists the transforms, in the order in which images go through them. A new one is a function of the protocol `Transform` and a line there.
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edm2core.config.settings import AugmentSettings
from edm2core.diffusion.augmentations.resampling import resampled
from edm2core.diffusion.devices import sent
from edm2core.registry import AUGMENTATIONS, load

Array = NDArray[np.float64]


class Drawn(NamedTuple):
    """What is drawn for a batch of N images."""

    labels: Array  # [N, labels], what the network is told; 0 for an image that stays as it is
    inverse: Array  # [N, 3, 3]: from a place in the new image to that in the old one, origin in the centre, the side of an image as unit


class Transform(Protocol):
    """A transform of images."""

    def __call__(self, random: np.random.Generator, count: int, probability: float, /) -> Drawn:
        """What happens to each of `count` images, which it leaves alone with probability 1 - `probability`."""


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

    mirrored = together(exact=True)[:, [0, 1], [0, 1]] < 0
    return Augmentation(np.concatenate([each.labels for each in drawn.values()], axis=1), mirrored, together(exact=False))


def augmented(images: Tensor, how: Augmentation) -> Tensor:
    """The augmented images [N, C, S, S]. One that is not moved keeps its bits, and one that is only mirrored has the same pixels."""
    mirrored = sent(torch.from_numpy(how.mirrored), images.device)
    for number, axis in enumerate((3, 2)):
        images = torch.where(mirrored[:, number, None, None, None], images.flip(axis), images)
    moved = np.flatnonzero((how.inverse != np.eye(3)).any(axis=(1, 2)))
    if not len(moved):
        return images
    index, inverse = (sent(torch.from_numpy(each), images.device) for each in (moved, how.inverse[moved]))
    return images.index_copy(0, index, resampled(images[index], inverse))
