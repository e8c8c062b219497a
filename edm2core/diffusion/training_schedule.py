"""The schedule of a training: the learning rate of each step, and the order of the images in each epoch."""

import math

import numpy as np
import torch
from torch import Tensor

from edm2core.config.settings import TrainingSettings
from edm2core.keyed_random import seed_of
from edm2core.registry import SCHEDULES, load


def learning_rate(training: TrainingSettings, epoch: float) -> float:
    """The learning rate of a step taken after `epoch` epochs, which is a fraction within an epoch."""
    rate: float = load(SCHEDULES[training.lr_changes])(training, epoch)
    return rate


def by_epoch(training: TrainingSettings, epoch: float) -> float:
    """FutureXiang/edm2's schedule, which warms up and falls by whole epochs."""
    whole = math.floor(epoch)
    if whole < training.warmup_epochs:
        return training.lr * (whole + 1) / training.warmup_epochs
    return training.lr / _decay(training, whole)


def by_images(training: TrainingSettings, epoch: float) -> float:
    """The paper's schedule: α_ref/√max(t/t_ref, 1) times a linear warm-up by the images seen (EDM2, equation 67), 0 at the first step."""
    warmup = min(epoch / training.warmup_epochs, 1.0) if training.warmup_epochs else 1.0
    return training.lr * warmup / _decay(training, epoch)


def _decay(training: TrainingSettings, epoch: float) -> float:
    return 1.0 if training.t_ref_epochs is None else math.sqrt(max(epoch / training.t_ref_epochs, 1.0))


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of the images in an epoch: a permutation [count], int64, that follows from the seed and the epoch alone."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(seed_of(seed, epoch, "order"))).permutation(count))
