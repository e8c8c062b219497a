"""Latents and classes of images, keyed by image: each follows from (seed, draw, index), whatever is drawn beside it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LABEL_STEP = 2**63  # no sampler has so many steps, so an image's class and noise come from different random numbers


def latents(seed: int, draw: int, indices: Sequence[int], shape: Sequence[int], step: int = 0) -> Tensor:
    """Unit normal noise of the images with these indices: float32 [n, *shape] on the CPU.

    Each image's numbers depend only on (seed, draw, its index, step), not on the batch or process.
    Step 0 is the sampler's start, step i + 1 the churn of its step i.
    """
    noise = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in zip(noise, indices, strict=True):
        np.random.Generator(_philox(seed, draw, index, step)).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise)


def between(start: Tensor, end: Tensor, shares: Sequence[float]) -> Tensor:
    """Latents on the great arc from each of `start` to that of `end`, [n, *shape]: float32 [n, len(shares), *shape].

    Shares 0 and 1 are the two ends. Along a straight line the middle would have half their variance, which no network was trained on.
    """
    a, b = start.double().flatten(1), end.double().flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    angle = torch.arccos(cosine.clamp(-1, 1))[:, None, None]
    share = torch.tensor(shares, dtype=torch.float64)[None, :, None]
    arc = (torch.sin((1 - share) * angle) * a[:, None] + torch.sin(share * angle) * b[:, None]) / torch.sin(angle)
    return arc.float().reshape(*arc.shape[:2], *start.shape[1:])


def drawn_labels(seed: int, draw: int, indices: Sequence[int], classes: int) -> Tensor:
    """The classes, uniform over 0 … classes - 1, of the images with these indices: int64 [n]; keyed as their latents are."""
    return torch.tensor([np.random.Generator(_philox(seed, draw, index, LABEL_STEP)).integers(classes) for index in indices])


def _philox(seed: int, draw: int, index: int, step: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, draw], np.uint64), counter=np.array([0, 0, index, step], np.uint64))
