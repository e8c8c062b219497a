"""A learning-rate schedule with restarts."""

import math


def cosine_restarts(training, epoch, *, period: float = 50.0):
    """From `training.lr` to 0 along a cosine, and again every `period` epochs."""
    return training.lr * (1 + math.cos(math.pi * (epoch % period) / period)) / 2
