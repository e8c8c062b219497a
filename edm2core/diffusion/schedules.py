"""The learning rate of each step. `SCHEDULES` in edm2core/registry.py lists the schedules.

A schedule of your own is a function of the protocol `Schedule`, and a line in that table.
"""

import math
from typing import Protocol

from edm2core.config.settings import TrainingSettings
from edm2core.registry import SCHEDULES, load


class Schedule(Protocol):
    """A schedule, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, training: TrainingSettings, epoch: float, /) -> float:
        """The learning rate of the step taken after `epoch` epochs, which is a fraction within an epoch.

        It may use `training.lr` and `training.warmup_epochs`. It depends on nothing that is no setting of a key: `training.epochs`, the
        length of the training, is none, so that a longer training begins with the same numbers.
        """


def learning_rate(training: TrainingSettings, epoch: float) -> float:
    """The settings' learning rate of the step taken after `epoch` epochs."""
    schedule: Schedule = load(SCHEDULES[training.lr_changes].code)
    return schedule(training, epoch, **training.options_of("lr_changes"))


def constant(training: TrainingSettings, epoch: float) -> float:
    """lr, after a linear warm-up by the images seen."""
    return training.lr * _warm_up(training, epoch)


def every_step(training: TrainingSettings, epoch: float, *, t_ref_epochs: float | None = None) -> float:
    """lr/√max(t/t_ref, 1) after t epochs, times a linear warm-up (EDM2: arXiv 2312.02696, equation 67)."""
    return training.lr * _warm_up(training, epoch) / _decay(epoch, t_ref_epochs)


def every_epoch(training: TrainingSettings, epoch: float, *, t_ref_epochs: float | None = None) -> float:
    """FutureXiang/edm2's: lr · (n + 1)/warm-up in whole epoch n of the warm-up, then lr/√max(n/t_ref, 1)."""
    whole = math.floor(epoch)
    if whole < training.warmup_epochs:
        return training.lr * (whole + 1) / training.warmup_epochs
    return training.lr / _decay(whole, t_ref_epochs)


def cosine(training: TrainingSettings, epoch: float, *, lr_end_epoch: float, lr_end: float = 0.0) -> float:
    """From lr, at the end of a linear warm-up, to lr · lr_end after `lr_end_epoch` epochs, where it stays.

    It follows the images seen, along half a cosine (SGDR: arXiv 1608.03983, equation 5, without restarts).
    """
    begin = training.warmup_epochs
    share = min(max((epoch - begin) / (lr_end_epoch - begin), 0.0), 1.0)
    return training.lr * _warm_up(training, epoch) * (lr_end + (1 - lr_end) * (1 + math.cos(math.pi * share)) / 2)


def _warm_up(training: TrainingSettings, epoch: float) -> float:
    """How much of the rate a linear warm-up has reached: from 0 at the first step to 1."""
    return min(epoch / training.warmup_epochs, 1.0) if training.warmup_epochs else 1.0


def _decay(epoch: float, t_ref_epochs: float | None) -> float:
    """What the rate is divided by: √max(t/t_ref, 1), or 1 without t_ref."""
    return 1.0 if t_ref_epochs is None else math.sqrt(max(epoch / t_ref_epochs, 1.0))
