"""Refuses images that are all alike or all of one colour: nothing can be learned from them or measured on them."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError


def checked(shards: Iterable[NDArray[np.uint8]], name: str) -> Iterator[NDArray[np.uint8]]:
    """Passes the shards on, uint8 [n, C, H, W]. Raises InputError after the last one if every image is of one colour, or all are alike."""
    first: NDArray[np.uint8] | None = None
    all_flat = all_same = True
    for shard in shards:
        if first is None and len(shard):
            first = np.array(shard[0])
        all_same = all_same and bool((shard == first).all())
        all_flat = all_flat and bool((shard.min(axis=(2, 3)) == shard.max(axis=(2, 3))).all())
        yield shard
    if first is not None and (all_flat or all_same):
        useless = f"The {name} are all {'the same image' if all_same else 'of one colour each'}, which says nothing about anything."
        do_next = "Look at them: the training diverged, the sampler's settings are wrong, or the data are not what they should be."
        raise InputError(useless, where=name, do_next=do_next)
