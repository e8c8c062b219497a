"""Nearest neighbours among features: precision, recall, density, coverage, and samples suspiciously near a training image."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from edm2core.metrics.compared import Compared, Value

BLOCK = 512  # rows of the matrix of distances in memory at once
SPARE = 4  # candidates by rough distance beyond the k wanted; the exact distances of all are computed
NUMBERS = 2**22  # of the differences of pairs in memory at once
TIE = 1e-11  # squared distances that differ by this share of themselves are equal: rounding is 2e-13 at most in 2048 features
COUNTED = 5  # neighbours that density and coverage count
SUSPICIOUS = 1 / 3  # of the distance to the second nearest (Yoon et al. 2023)


class Nearest(NamedTuple):
    """The nearest points of each query, ascending: distances float64 [n, k], and indices of the points [n, k]."""

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, points: Tensor, k: int, *, among_themselves: bool = False) -> Nearest:
    """The k nearest points of each query, by Euclidean distance; `among_themselves`: queries are the points, and none is its own."""
    parts = [pairs.nearest(k, begin if among_themselves else None) for begin, pairs in _pairs(queries, points)]
    return Nearest(*(torch.cat(each) for each in zip(*parts, strict=True)))


def precision_and_recall(samples: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision: the share of samples inside a ball around some real image. Recall: the same with samples and real images exchanged.

    A ball reaches to the k-th nearest other point of its own set, which lies inside.
    Kynkäänniemi et al., arXiv 1904.06991, equations 1 and 2.
    """
    limits = [_limits(points, k, edges=True) for points in (samples, real)]
    precise, recalled = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for begin, pairs in _pairs(samples, real):
        precise.append(pairs.within(limits[1], edges=True).any(1))
        recalled |= pairs.within(limits[0][begin : begin + BLOCK, None], edges=True).any(0)
    return float(torch.cat(precise).double().mean()), float(recalled.double().mean())


def density_and_coverage(samples: Tensor, real: Tensor, k: int = COUNTED) -> tuple[float, float]:
    """Density: in how many balls around real images a sample lies on average, over k. Coverage: the share of balls that hold a sample.

    A ball reaches to the k-th nearest other real image.
    Naeem et al., arXiv 2002.09797, equations 4 and 5; edges do not belong to the balls, so that of identical sets both are 1. Of equal
    distributions the expected density is 1, the expected coverage 1 - (N-1)…(N-k) / ((M+N-1)…(M+N-k)) for N real images and M samples.
    """
    limits = _limits(real, k, edges=False)
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for _, pairs in _pairs(samples, real):
        within = pairs.within(limits, edges=False)
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
    distances, indices = nearest(samples, training, 2)
    first, second = distances.T
    ratios = torch.where(second > 0, first / second, 0.0)
    order = ratios.argsort(stable=True)[:pairs]
    return Memorised(float((ratios < SUSPICIOUS).double().mean()), order.tolist(), indices[order, 0].tolist(), ratios[order].tolist())


def precision(compared: Compared) -> dict[str, Value]:
    """Precision and recall, as metrics."""
    precision, recall = precision_and_recall(*compared.tensors())
    return {"precision": Value(precision), "recall": Value(recall)}


def density(compared: Compared) -> dict[str, Value]:
    """Density and coverage, as metrics."""
    density, coverage = density_and_coverage(*compared.tensors())
    return {"density": Value(density), "coverage": Value(coverage)}


def memorisation(compared: Compared) -> dict[str, Value]:
    """The share of samples suspiciously near a training image, as a metric. The nearest pairs are put into `compared`."""
    compared.memorised = memorised(*compared.tensors())
    return {"memorisation": Value(compared.memorised.share)}


class _Pairs(NamedTuple):
    """Some queries [n, d] beside all points [m, d], float64.

    Squared distances [n, m] by a matrix product are rough; `error` [n, 1] bounds each row's rounding error.
    """

    queries: Tensor
    points: Tensor
    rough: Tensor
    error: Tensor

    def within(self, limits: Tensor, *, edges: bool) -> Tensor:
        """Whether squared distances [n, m] are below the limits, to which they broadcast. Exact ones decide where rough ones cannot."""
        inside = torch.le if edges else torch.lt
        over = self.rough - limits
        within = inside(over, 0)
        rows, columns = (over.abs_() <= self.error).nonzero(as_tuple=True)
        limits = limits.expand_as(over)
        for pairs in torch.split(torch.arange(len(rows), device=rows.device), self._at_once):
            i, j = rows[pairs], columns[pairs]
            within[i, j] = inside(_squares(self.queries[i], self.points[j]), limits[i, j])
        return within

    def nearest(self, k: int, begin: int | None) -> Nearest:
        """The k nearest points of each query. If queries are points, the first is `points[begin]`, and none is its own neighbour."""
        skip = int(begin is not None)
        if begin is not None:
            self.rough.diagonal(begin).fill_(-torch.inf)  # first, even among copies
        looked = min(k + skip + SPARE, len(self.points))
        values, candidates = self.rough.topk(looked, largest=False)
        candidates = candidates[:, skip:]
        squares = torch.stack([_squares(self.queries, self.points[column]) for column in candidates.T], dim=1)
        exact, order = squares.sort(dim=1, stable=True)
        indices = candidates.gather(1, order)
        if looked < len(self.points):
            doubtful = exact[:, k - 1] > values[:, -1] - self.error[:, 0]  # a point that was no candidate may be nearer
            for row in doubtful.nonzero().flatten().tolist():
                every = torch.cat([_squares(self.queries[row], part) for part in torch.split(self.points, self._at_once)])
                if begin is not None:
                    every[begin + row] = torch.inf
                exact[row, :k], indices[row, :k] = every.topk(k, largest=False)
        return Nearest(exact[:, :k].sqrt(), indices[:, :k])

    @property
    def _at_once(self) -> int:
        """How many pairs' differences are in memory at once."""
        return max(NUMBERS // self.points.shape[1], 1)


def _pairs(queries: Tensor, points: Tensor) -> Iterator[tuple[int, _Pairs]]:
    """Some queries at a time, with the number of the first. All lose the points' mean, which far from 0 would cost the differences digits.

    Higham 2002, "Accuracy and Stability of Numerical Algorithms", equation 3.5, bounds the product's error.
    """
    mean = points.double().mean(dim=0)
    x, y = queries.double() - mean, points.double() - mean
    norms, y_norms = x.square().sum(1), y.square().sum(1)
    errors = (norms + y_norms.max()) * ((x.shape[1] + 4) * 2.0**-51)
    for begin in range(0, len(x), BLOCK):
        own, error = (part[begin : begin + BLOCK, None] for part in (norms, errors))
        block = x[begin : begin + BLOCK]
        yield begin, _Pairs(block, y, torch.addmm(own + y_norms, block, y.T, alpha=-2), error)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Exact squared distances of pairs, [..., d] and [..., d] → [...]. Wherever distances are compared, these decide."""
    return (x - y).square_().sum(-1)


def _limits(centres: Tensor, k: int, *, edges: bool) -> Tensor:
    """The squared distances [n] of each centre's k-th nearest other, moved outwards by TIE if `edges`, else inwards.

    Points on the edge of a ball are thereby inside, or outside, whatever rounding did.
    """
    return nearest(centres, centres, k, among_themselves=True).distances[:, -1].square() * (1 + TIE if edges else 1 - TIE)
