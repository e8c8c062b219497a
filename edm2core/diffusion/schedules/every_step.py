"""The paper's schedule, which follows the images seen (EDM2: arXiv 2312.02696, equation 67)."""

import math

from edm2core.config.settings import TrainingSettings


def every_step(training: TrainingSettings, epoch: float, *, t_ref_epochs: float | None = None) -> float:
    """lr/√max(t/t_ref, 1) after t epochs, times a linear warm-up; 0 at the first step if there is a warm-up."""
    return training.lr * warm_up(training, epoch) / decay(epoch, t_ref_epochs)


def warm_up(training: TrainingSettings, epoch: float) -> float:
    """How much of the rate a linear warm-up has reached: from 0 at the first step to 1."""
    return min(epoch / training.warmup_epochs, 1.0) if training.warmup_epochs else 1.0


def decay(epoch: float, t_ref_epochs: float | None) -> float:
    """What the rate is divided by: √max(t/t_ref, 1), or 1 without t_ref."""
    return 1.0 if t_ref_epochs is None else math.sqrt(max(epoch / t_ref_epochs, 1.0))
