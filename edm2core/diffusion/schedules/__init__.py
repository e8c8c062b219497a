"""Learning-rate schedules, one file each. `SCHEDULES` in edm2core/registry.py lists them.

A schedule of your own is a function of the protocol `Schedule`, in a file of its own, and a line in that table.
"""

from typing import Protocol

from edm2core.config.settings import TrainingSettings


class Schedule(Protocol):
    """A schedule, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, training: TrainingSettings, epoch: float, /) -> float:
        """The learning rate of the step taken after `epoch` epochs, which is a fraction within an epoch.

        It may use `training.lr` and `training.warmup_epochs`. It depends on nothing that is no setting of a key: `training.epochs`, the
        length of the training, is none, so that a longer training begins with the same numbers.
        """
