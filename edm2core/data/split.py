"""A data set on its way into the prepared form, and the test split of one that has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError

Blocks = Iterator[NDArray[np.uint8]]


@dataclass(frozen=True)
class Split:
    """Labels int64 [N], known first, and the images in the same order, as blocks uint8 [n, C, H, W] that are made when asked for."""

    labels: NDArray[np.int64]
    images: Blocks


@dataclass(frozen=True)
class Images:
    """A data set as a reader delivers it; `notes` say what of the source was left out."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # C, H, W
    train: Split
    test: Split
    notes: tuple[str, ...] = ()


def blocks_of(images: NDArray[np.uint8], size: int = 1024) -> Blocks:
    """An array [N, C, H, W] cut into blocks of at most `size` images."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def stratified_test(digests: Sequence[bytes], labels: Sequence[int], classes: Sequence[str], share: float, where: str) -> NDArray[np.bool_]:
    """Which images are the test split, bool [N]: of each class the `share` whose content's digests are smallest.

    It depends on the images alone, so that it is the same everywhere, equal images fall on one side (but for one pair a class),
    and one more image moves few others. Raises InputError for a class too small to have both splits.
    """
    members: list[list[int]] = [[] for _ in classes]
    for index, label in enumerate(labels):
        members[label].append(index)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for name, indices in zip(classes, members, strict=True):
        if share == 0:
            continue
        if len(indices) < 2:
            raise InputError(
                f"class {name!r} has {len(indices)} image, and a training and a test split need one each",
                where=where,
                do_next="add images, or set data.test_share: 0",
            )
        count = min(max(round(share * len(indices)), 1), len(indices) - 1)
        chosen[sorted(indices, key=lambda index: (digests[index], index))[:count]] = True
    return chosen
