"""A learning rate that falls along half a cosine (SGDR: arXiv 1608.03983, equation 5, without restarts)."""

import math

from edm2core.config.settings import TrainingSettings
from edm2core.diffusion.schedules.every_step import warm_up


def cosine(training: TrainingSettings, epoch: float, *, lr_end_epoch: float, lr_end: float = 0.0) -> float:
    """From lr, at the end of a linear warm-up, to lr · lr_end after `lr_end_epoch` epochs, where it stays. It follows the images seen."""
    begin = training.warmup_epochs
    share = min(max((epoch - begin) / (lr_end_epoch - begin), 0.0), 1.0)
    return training.lr * warm_up(training, epoch) * (lr_end + (1 - lr_end) * (1 + math.cos(math.pi * share)) / 2)
