"""Nearest neighbours among features: density and coverage, and samples that lie suspiciously near a training image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 512  # rows of a matrix of distances that are held at once
SUSPICIOUS = 1 / 3  # of the distance to the second nearest (Yoon et al. 2023)


class Nearest(NamedTuple):
    """For each query, ascending: distances [n, k], float64, and which points they are [n, k]."""

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, points: Tensor, k: int, *, among_themselves: bool = False) -> Nearest:
    """The k nearest points of each query, by Euclidean distance; `among_themselves`: queries are the points, and none is its own."""
    points, skip = points.double(), int(among_themselves)
    found = []
    for begin in range(0, len(queries), BLOCK):
        block = queries[begin : begin + BLOCK].double()
        distances = torch.cdist(block, points)
        if among_themselves:
            distances.diagonal(begin).fill_(-1)  # first, even among copies
        indices = distances.topk(k + skip, largest=False).indices[:, skip:]
        exact, order = (points[indices] - block[:, None]).norm(dim=2).sort(stable=True)  # a matrix product gives copies a distance
        found.append((exact, indices.gather(1, order)))
    return Nearest(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def density_and_coverage(samples: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """How many balls around real images, of radius to the k-th nearest other, hold a sample, over k; the share of balls that hold one.

    Naeem et al., arXiv 2002.09797, equations 4 and 5. Of equal distributions the expected density is 1, the expected coverage
    1 - (N-1)…(N-k) / ((M+N-1)…(M+N-k)) for N real images and M samples.
    """
    radii = nearest(real, real, k, among_themselves=True).distances[:, -1]
    points, inside, covered = real.double(), 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for begin in range(0, len(samples), BLOCK):
        within = torch.cdist(samples[begin : begin + BLOCK].double(), points) < radii
        inside += int(within.sum())
        covered |= within.any(0)
    return inside / (k * len(samples)), float(covered.double().mean())


class Memorised(NamedTuple):
    """The share of samples that lie suspiciously near a training image, and the nearest pairs, the most suspicious first."""

    share: float
    samples: list[int]
    training: list[int]
    ratios: list[float]


def memorised(samples: Tensor, training: Tensor, pairs: int = 16) -> Memorised:
    """A sample is suspicious if its nearest training image is at less than a third of the distance of the second nearest.

    Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize", there in pixels. A training image that
    occurs twice hides its copies, unless they are exact.
    """
    found = nearest(samples, training, 2)
    first, second = found.distances.T
    ratios = torch.where(second > 0, first / second, 0.0)
    order = ratios.argsort(stable=True)[:pairs]
    return Memorised(float((ratios < SUSPICIOUS).double().mean()), order.tolist(), found.indices[order, 0].tolist(), ratios[order].tolist())
