"""What is known of data sets before they are opened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edm2core.config.settings import DataSettings

SHAPES = {"cifar10": (3, 32, 10), "cifar100": (3, 32, 100), "tinyimagenet": (3, 64, 200), "digits": (1, 8, 10)}  # channels, side, classes
TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "tinyimagenet": 100_000}  # of published data sets
DIGITS = 1797  # scikit-learn's, for training and test together


def most_training_images(data: DataSettings) -> int | None:
    """How many images for training a data set has at most; None where only looking at them tells."""
    return math.ceil(DIGITS * (1 - data.test_share)) if data.format == "digits" else TRAINING_IMAGES.get(data.format)
