"""scikit-learn's digits: 1797 real scans of 8x8 pixels, in the package."""

import hashlib

import numpy as np
from sklearn.datasets import load_digits

from edm2core.config.settings import DataSettings
from edm2core.data.split import Images, Split, blocks_of, stratified_test


def read_digits(_: None, settings: DataSettings) -> Images:
    """Grey values 0…16 as uint8 0…255, [N, 1, 8, 8]; a stratified share becomes the test split."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    classes = tuple(str(name) for name in digits.target_names)
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    test = stratified_test(digests, labels.tolist(), classes, settings.test_share, "digits")
    train = ~test
    return Images(classes, (1, 8, 8), Split(labels[train], blocks_of(images[train])), Split(labels[test], blocks_of(images[test])))
