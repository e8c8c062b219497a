"""Randomness by key, never consumed: what a step draws depends on its name alone, so work can stop, resume and be split."""

from __future__ import annotations

import hashlib


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2^63) from a name such as (seed, step, "noise")."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
