"""The schedule of a training: the learning rate of each step, and the order of the images in each epoch."""

import numpy as np
import torch
from torch import Tensor

from edm2core.config.settings import TrainingSettings
from edm2core.diffusion.schedules import Schedule
from edm2core.keyed_random import seed_of
from edm2core.registry import SCHEDULES, load


def learning_rate(training: TrainingSettings, epoch: float) -> float:
    """The learning rate of a step taken after `epoch` epochs, which is a fraction within an epoch."""
    schedule: Schedule = load(SCHEDULES[training.lr_changes].code)
    return schedule(training, epoch, **training.options_of("lr_changes"))


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of the images in an epoch: a permutation [count], int64, that follows from the seed and the epoch alone."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(seed_of(seed, epoch, "order"))).permutation(count))
