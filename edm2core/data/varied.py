"""Refuses sets of images that are useless for training and for metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError


def checked(shards: Iterable[NDArray[np.uint8]], what: str) -> Iterator[NDArray[np.uint8]]:
    """Passes the shards on, uint8 [n, C, H, W]. Raises InputError after the last one if every image is of one colour, or all are alike."""
    first: NDArray[np.uint8] | None = None
    all_flat = all_same = True
    for shard in shards:
        if first is None and len(shard):
            first = np.array(shard[0])
        if all_same:
            all_same = bool((shard == first).all())
        if all_flat:
            all_flat = bool((shard.min(axis=(2, 3)) == shard.max(axis=(2, 3))).all())
        yield shard
    if first is not None and (all_flat or all_same):
        raise InputError(
            f"The {what} are all {'the same image' if all_same else 'of one colour each'}, which says nothing about anything.",
            where=what,
            do_next="Look at them: the training diverged, the sampler's settings are wrong, or the data are not what they should be.",
        )
