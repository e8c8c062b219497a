"""FutureXiang/edm2's schedule: it warms up and falls by whole epochs."""

import math

from edm2core.config.settings import TrainingSettings
from edm2core.diffusion.schedules.every_step import decay


def every_epoch(training: TrainingSettings, epoch: float, *, t_ref_epochs: float | None = None) -> float:
    """lr · (n + 1)/warm-up in whole epoch n of the warm-up, then lr/√max(n/t_ref, 1)."""
    whole = math.floor(epoch)
    if whole < training.warmup_epochs:
        return training.lr * (whole + 1) / training.warmup_epochs
    return training.lr / decay(whole, t_ref_epochs)
