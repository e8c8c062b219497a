"""A metric of the images themselves."""

import numpy as np


def colour_histogram(samples, real, *, bins: int = 16):
    """How far the histograms of samples' and training images' values lie apart: half the sum of differences, 0 to 1."""
    ours, theirs = (np.histogram(images, bins=bins, range=(0, 256))[0] / images.size for images in (samples, real))
    return float(np.abs(ours - theirs).sum() / 2)
