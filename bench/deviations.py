"""`python -m bench.deviations`: is every ± what it says? Each metric's standard error against the deviation between many sets of samples.

Features are few, so that sets are cheap: what matters is how many samples and training images there are, and how far apart they are.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement, product
from math import factorial, prod, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch_fidelity.defaults import DEFAULTS

from edm2core.metrics.compared import Compared
from edm2core.metrics.kernel_distance import SUBSET, SUBSETS, kernel_distance
from edm2core.metrics.names import Metric
from edm2core.metrics.statistics import Reference, ReferenceInfo, frechet_distance, frechet_error, statistics
from edm2core.metrics.values import metric_values

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
    origin = inner_features(real[max(IMAGES)]).mean(axis=0)
    for n in counts:
        rows: dict[int, list[str]] = {images: [] for images in IMAGES}
        quick = {images: quick_kernel_distance(n, real[images], origin) for images in IMAGES}
        for shift in SHIFTS.values():
            found: dict[int, list[tuple[float, float]]] = {images: [] for images in IMAGES}
            for seed in range(1, sets + 1):
                samples = drawn(n, shift, seed)
                inner = inner_features(samples) - origin
                for images in IMAGES:
                    found[images].append(quick[images](inner))
                    if seed == 1 and shift == SHIFTS["near"]:
                        value, error = kernel_distance(samples, real[images])
                        assert np.allclose((value, error), found[images][0], rtol=0, atol=1e-3 * error), (
                            "the quick way gives what the metric does"
                        )
            for images in IMAGES:
                rows[images].append(f"{rms([e for _, e in found[images]]) / np.std([v for v, _ in found[images]], ddof=1):.2f}")
        yield from (f"| {n} | {images} | {' | '.join(cells)} |" for images, cells in rows.items())


def quick_kernel_distance(n: int, real: Features, origin: Features) -> Callable[[Features], tuple[float, float]]:
    """What `kernel_distance` gives, of n samples' φ less an origin: φ, whose inner product the kernel is, is short where features are few.

    The distance is the same about any origin; about the mean of what both are like, float32 is exact enough.
    """
    draws, m = np.random.RandomState(DEFAULTS["rng_seed"]), SUBSET
    chosen = [[draws.choice(count, m, replace=False) for count in (n, len(real))] for _ in range(SUBSETS)]
    rows, columns = (membership([pair[side] for pair in chosen], count) for side, count in ((0, n), (1, len(real))))
    theirs = inner_features(real) - origin
    their_sums = columns @ theirs
    their_pairs = np.square(their_sums).sum(1) - columns @ np.square(theirs).sum(1)
    sizes = rows.sum(axis=0)

    def distance(ours: Features) -> tuple[float, float]:
        squares = np.einsum("ij,ij->i", ours, ours)
        sums = rows @ ours
        pairs, across = np.square(sums).sum(1) - rows @ squares, (sums * their_sums).sum(1) / m
        # what each subset's distance becomes without a sample, less what it is with it: linear in the sample's φ but for its square
        slopes = 2 / (m - 1) * (their_sums / m - sums / (m - 2))
        same = pairs / ((m - 1) * (m - 2)) - 2 * across / (m - 1) - (pairs / (m * (m - 1)) - 2 * across / m)
        moved = np.einsum("ij,ij->i", ours, rows.T @ slopes) + 2 / ((m - 1) * (m - 2)) * sizes * squares + rows.T @ same
        values = (pairs + their_pairs) / (m * (m - 1)) - 2 * across / m
        return float(np.mean(values)), float(np.sqrt((m - 1) / m * np.square(moved / SUBSETS).sum()))

    return distance


def membership(chosen: list[NDArray[np.int64]], count: int) -> Any:
    """[subsets, count]: 1 for who is in a subset; sparse where few are in any one."""
    inside = np.zeros((len(chosen), count), np.float32)
    for row, members in zip(inside, chosen, strict=True):
        row[members] = 1
    return inside if count < 5 * SUBSET else csr_array(inside)


def inner_features(x: Features) -> Features:
    """φ with φ(x)·φ(y) = (x·y/d + 1)³."""
    root = np.concatenate([x.T / np.sqrt(np.float32(x.shape[1])), np.ones((1, len(x)), np.float32)])
    columns = []
    for first, second in combinations_with_replacement(range(len(root)), 2):
        two = root[first] * root[second]
        for third in range(second, len(root)):
            triple = (first, second, third)
            times = factorial(3) / prod(factorial(triple.count(index)) for index in set(triple))
            columns.append(np.float32(sqrt(times)) * two * root[third])
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
    measured = metric_values([Metric("is", "inception")], compared)["is"]
    assert measured.error is not None
    return measured.value, measured.error


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
