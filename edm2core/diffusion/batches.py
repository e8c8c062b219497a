"""The images of a training step: their order, flips, augmentation, noise levels and noise follow from the seed and the step alone."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.augmentations import augmentation, augmented
from edm2core.diffusion.devices import sent
from edm2core.diffusion.dropout import dropout_keys
from edm2core.diffusion.layers import mirrored
from edm2core.diffusion.loss import noise_levels
from edm2core.keyed_random import seed_of


class Batch(NamedTuple):
    """The images of one step, at the network's scale, with what is drawn for them, as the objective takes them."""

    images: Tensor  # [N, C, H, W]
    sigma: Tensor  # [N]
    noise: Tensor  # [N, C, H, W]
    labels: Tensor | None  # [N], of a class-conditional network
    keys: Tensor | None  # [N, blocks, 2], of dropout's masks
    augment: Tensor | None = None  # [N, augmentation labels], of a network that is told how its images were augmented

    def part(self, begin: int, end: int) -> "Batch":
        """The images from `begin` up to, but not including, `end`."""
        return Batch(*(None if each is None else each[begin:end] for each in self))  # type: ignore[arg-type]

    def share(self, rank: int, world_size: int, micro_batch: int | None) -> "tuple[list[Batch], float]":
        """One process's micro-batches, and the weight of an image's loss in the mean over the whole batch."""
        total = len(self.sigma)
        share = self.part(rank * total // world_size, (rank + 1) * total // world_size)
        held = micro_batch or max(len(share.sigma), 1)
        if not len(share.sigma):  # A short batch may have no image for this process, which still joins the reduction, with weight 0.
            return [self.part(0, 1)], 0.0
        return [share.part(begin, begin + held) for begin in range(0, len(share.sigma), held)], 1.0 / total


@dataclass
class Batches:
    """The global batches of a trajectory. Every process draws the whole batch, so the numbers do not depend on the number of processes.

    `images` is the whole training set, uint8 [N, C, H, W], on its device; so are its `labels`, int64 [N]. The network has `blocks` blocks.
    """

    settings: TrajectorySettings
    pixel_scale: PixelScale
    images: Tensor
    labels: Tensor | None
    blocks: int
    _order: tuple[int, Tensor] = field(default_factory=lambda: (-1, torch.empty(0)))  # of the epoch drawn last

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.images) // self.settings.training.batch)

    def images_before(self, step: int) -> int:
        """Images in the first `step` optimiser steps, over all processes."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * len(self.images) + steps * self.settings.training.batch

    def after(self, step: int) -> Batch:
        """The batch of the step that follows `step` steps."""
        training, device = self.settings.training, self.images.device
        index = self._index(step)
        images = self.pixel_scale.to_network(self.images[index].float() / 255)
        if training.flip:
            images = mirrored(images, torch.rand(len(index), generator=self._generator(step, "flip"), device=device) < 0.5)
        augment = None
        if training.augment:
            how = augmentation(training.augment, lambda name: self._seed(step, f"augment {name}"), len(index))
            images, augment = augmented(images, how), sent(torch.from_numpy(how.labels).float(), device)
        normal = torch.randn(len(index), generator=self._generator(step, "sigma"), device=device)
        noise = torch.randn(images.shape, generator=self._generator(step, "noise"), device=device)
        labels = self._labels(step, index) if self.labels is not None and self.settings.network.classes else None
        keys = dropout_keys(self._seed(step, "dropout"), len(index), self.blocks, device) if self.settings.network.dropout else None
        return Batch(images, noise_levels(normal, self.settings.diffusion), noise, labels, keys, augment)

    def _index(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, sent(epoch_order(self.settings.seed, epoch, len(self.images)), self.images.device)
        batch = self.settings.training.batch
        return self._order[1][position * batch : (position + 1) * batch]

    def _labels(self, step: int, index: Tensor) -> Tensor:
        """The images' classes; where they are dropped, the label `classes`, which means any class."""
        assert self.labels is not None  # noqa: S101
        labels, dropout = self.labels[index], self.settings.training.label_dropout
        if not dropout:
            return labels
        dropped = torch.rand(len(index), generator=self._generator(step, "label_dropout"), device=labels.device) < dropout
        return labels.masked_fill(dropped, self.settings.network.classes)

    def _seed(self, step: int, purpose: str) -> int:
        return seed_of(self.settings.seed, step, purpose)

    def _generator(self, step: int, purpose: str) -> torch.Generator:
        return torch.Generator(self.images.device).manual_seed(self._seed(step, purpose))


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of the images in an epoch: a permutation [count], int64, that follows from the seed and the epoch alone."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(seed_of(seed, epoch, "order"))).permutation(count))
