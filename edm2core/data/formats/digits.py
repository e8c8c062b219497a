"""scikit-learn's digits: 1797 real scans of 8x8 pixels, in the package."""

import numpy as np
from sklearn.datasets import load_digits

from edm2core.config.settings import DataSettings
from edm2core.data.split import Images, divided


def read_digits(_: None, settings: DataSettings) -> Images:
    """Grey values 0…16 as uint8 0…255, [N, 1, 8, 8]; a stratified share becomes the test split."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return divided(images, digits.target.astype(np.int64), tuple(map(str, digits.target_names)), settings.test_share, "digits")
