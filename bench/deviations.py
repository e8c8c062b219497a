"""`python -m bench.deviations`: is every ± what it says? Each metric's standard error against the deviation between many sets of samples.

Features are few, so that sets are cheap: what matters is how many samples and training images there are, and how far apart they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement, product
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch_fidelity.defaults import DEFAULTS

from edm2core.metrics.kernel import SUBSETS, kernel_distance
from edm2core.metrics.names import SUBSET, Metric
from edm2core.metrics.statistics import Reference, ReferenceInfo, frechet_distance, frechet_error, statistics
from edm2core.metrics.values import Compared, metric_values

Features = NDArray[np.float32]
COUNTS, IMAGES = (1000, 1100, 2050, 10000, 50000), (1100, 1440, 10000, 50000)
DIMENSIONS = 10
SHIFTS = {"alike": 0.0, "near": 0.02, "far": 0.5}  # of the samples' mean, in deviations of a feature


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.deviations", description=__doc__)
    parser.add_argument(
        "metrics", nargs="*", choices=["kid", "fid", "is"], default=["kid", "fid", "is"], help="which of kid, fid, is (default: all)"
    )
    parser.add_argument("--sets", type=int, default=400, help="sets of samples")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="KID's and the Inception score's numbers of samples")
    options = parser.parse_args()
    ways = {"kid": lambda: kid(options.sets, options.counts), "is": lambda: inception_score(options.sets, options.counts)}
    for metric in options.metrics:
        for line in ways.get(metric, lambda: fid(options.sets))():
            print(line, flush=True)


def kid(sets: int, counts: Sequence[int]) -> Iterator[str]:
    """The ± over the true deviation, for each number of samples and of training images."""
    yield "| samples | training images | " + " | ".join(SHIFTS) + " |"
    yield "|---|---|" + "---|" * len(SHIFTS)
    real = {images: drawn(images, 0.0, 0) for images in IMAGES}
    for n in counts:
        rows: dict[int, list[str]] = {images: [] for images in IMAGES}
        quick = {images: quick_kernel_distance(n, real[images]) for images in IMAGES}
        for shift in SHIFTS.values():
            found: dict[int, list[tuple[float, float]]] = {images: [] for images in IMAGES}
            for seed in range(1, sets + 1):
                samples = drawn(n, shift, seed)
                inner = inner_features(samples)
                for images in IMAGES:
                    found[images].append(quick[images](inner))
                    if seed == 1:
                        own = kernel_distance(samples, real[images])
                        assert np.allclose(own, found[images][0], rtol=1e-6, atol=1e-10), "the quick way must give what the metric gives"
            for images in IMAGES:
                rows[images].append(f"{rms([e for _, e in found[images]]) / np.std([v for v, _ in found[images]], ddof=1):.2f}")
        yield from (f"| {n} | {images} | {' | '.join(cells)} |" for images, cells in rows.items())


def quick_kernel_distance(n: int, real: Features) -> Callable[[NDArray[np.float64]], tuple[float, float]]:
    """What `kernel_distance` gives, of n samples' features φ, whose inner product the cubic kernel is: there are few of few dimensions."""
    draws, m = np.random.RandomState(DEFAULTS["rng_seed"]), SUBSET
    chosen = [[draws.choice(count, m, replace=False) for count in (n, len(real))] for _ in range(SUBSETS)]
    rows, columns = (membership([pair[side] for pair in chosen], count) for side, count in ((0, n), (1, len(real))))
    theirs = inner_features(real)
    their_sums = columns @ theirs
    their_pairs = np.square(their_sums).sum(1) - columns @ np.square(theirs).sum(1)

    def distance(ours: NDArray[np.float64]) -> tuple[float, float]:
        squares = np.square(ours).sum(1)
        sums = rows @ ours
        pairs, across = np.square(sums).sum(1) - rows @ squares, (sums * their_sums).sum(1) / m
        own_pairs, own_across = ours @ sums.T - squares[:, None], ours @ their_sums.T / m
        without = (pairs - 2 * own_pairs) / ((m - 1) * (m - 2)) - 2 * (across - own_across) / (m - 1)
        moved = (rows.T * (without - pairs / (m * (m - 1)) + 2 * across / m)).sum(1) / SUBSETS
        values = (pairs + their_pairs) / (m * (m - 1)) - 2 * across / m
        return float(np.mean(values)), float(np.sqrt((m - 1) / m * np.square(moved).sum()))

    return distance


def membership(chosen: list[NDArray[np.int64]], count: int) -> NDArray[np.float64]:
    """[subsets, count]: 1 for who is in a subset."""
    inside = np.zeros((len(chosen), count))
    for row, members in zip(inside, chosen, strict=True):
        row[members] = 1
    return inside


def inner_features(x: Features) -> NDArray[np.float64]:
    """φ with φ(x)·φ(y) = (x·y/d + 1)³."""
    root = np.concatenate([x.astype(np.float64) / np.sqrt(x.shape[1]), np.ones((len(x), 1))], axis=1)
    columns = []
    for triple in combinations_with_replacement(range(root.shape[1]), 3):
        times = factorial(3) / np.prod([factorial(triple.count(index)) for index in set(triple)])
        columns.append(np.sqrt(times) * root[:, triple].prod(axis=1))
    return np.stack(columns, axis=1)


def fid(sets: int) -> Iterator[str]:
    """The ± over the true deviation; few samples for their features are where a covariance is hardest to tell."""
    yield "| features | samples | " + " | ".join(SHIFTS) + " |"
    yield "|---|---|" + "---|" * len(SHIFTS)
    for dimensions, n in product((8, 64), (72, 100, 200, 1000, 5000)):
        reference = statistics(drawn(10000, 0.0, 0, dimensions))
        cells = []
        for shift in SHIFTS.values():
            found = [drawn(n, shift, seed, dimensions) for seed in range(1, sets + 1)]
            true = np.std([frechet_distance(statistics(x), reference) for x in found], ddof=1)
            cells.append(f"{rms([frechet_error(x, reference) for x in found]) / true:.2f}")
        yield f"| {dimensions} | {n} | " + " | ".join(cells) + " |"


def inception_score(sets: int, counts: Sequence[int]) -> Iterator[str]:
    """The ± over the true deviation."""
    yield "| samples | ± over the true deviation |"
    yield "|---|---|"
    reference = Reference(statistics(drawn(100, 0.0, 0)), ReferenceInfo(100, "inception", "", ""))
    for n in counts:
        found = [score(drawn(n, 0.0, seed), reference) for seed in range(1, sets + 1)]
        yield f"| {n} | {rms([error for _, error in found]) / np.std([value for value, _ in found], ddof=1):.2f} |"


def score(x: Features, reference: Reference) -> tuple[float, float]:
    """The Inception score of logits that are these features, and its ±."""
    compared = Compared(x, reference, torch.device("cpu"), lambda: 4 * torch.from_numpy(x))
    value, error = metric_values([Metric("is", "inception")], compared)["is"]
    assert error is not None
    return value, error


def drawn(n: int, shift: float, seed: int, dimensions: int = DIMENSIONS) -> Features:
    """Features [n, dimensions] as networks give them: none below 0, skewed, correlated; seed 0 is the training images'."""
    normal = np.random.default_rng((seed, n)).standard_normal((n, dimensions))
    mixing = np.eye(dimensions) + 0.3 * np.random.default_rng(dimensions).standard_normal((dimensions, dimensions))
    return np.maximum(normal @ mixing + shift, 0).astype(np.float32)


def rms(values: list[float]) -> float:
    """The root mean square: what a standard error's square is right on average of."""
    return float(np.sqrt(np.mean(np.square(values))))


if __name__ == "__main__":
    main()
