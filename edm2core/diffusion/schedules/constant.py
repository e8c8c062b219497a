"""A constant learning rate."""

from edm2core.config.settings import TrainingSettings
from edm2core.diffusion.schedules.every_step import warm_up


def constant(training: TrainingSettings, epoch: float) -> float:
    """lr, after a linear warm-up by the images seen."""
    return training.lr * warm_up(training, epoch)
