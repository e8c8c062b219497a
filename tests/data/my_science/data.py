"""Images that are drawn instead of read: discs and squares of random size and place."""

import numpy as np


def shapes(source, *, count: int = 1000, side: int = 8, seed: int = 0):
    """`count` grey images of two classes."""
    draw = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(count) % 2
    centre, radius = draw.uniform(side / 4, side * 3 / 4, (2, count, 1, 1)), draw.uniform(side / 8, side / 3, (count, 1, 1))
    rows, columns = np.abs(np.mgrid[:side, :side][:, None] - centre)
    distance = np.where(labels[:, None, None] == 0, np.hypot(rows, columns), np.maximum(rows, columns))
    images = np.clip((radius - distance) + 0.5, 0, 1) * 255
    return images.astype(np.uint8)[:, None], labels, ("disc", "square")
