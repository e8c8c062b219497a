"""The machine's own limit: its fastest matrix product, measured in the same run as what is compared with it."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from bench.worker import Work

SIDE = 2048


def sgemm() -> Work:
    """`rate` in FLOP/s of a float32 product of two 2048×2048 matrices, by MKL and by oneDNN (as a 1×1 convolution), whichever is faster.

    MKL runs its slower AVX2 kernels on processors that are not Intel's, where oneDNN uses AVX-512.
    """
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    pixels = torch.randn(1, SIDE, 64, SIDE // 64).to(memory_format=torch.channels_last)
    kernel = torch.randn(SIDE, SIDE, 1, 1).to(memory_format=torch.channels_last)

    def work() -> dict[str, float]:
        with torch.inference_mode():
            return {"rate": 2 * SIDE**3 / min(_seconds(lambda: torch.mm(a, b)), _seconds(lambda: F.conv2d(pixels, kernel)))}

    return work


def _seconds(product) -> float:  # type: ignore[no-untyped-def]
    """The fastest of a few calls: a limit is what the machine can do when it is let."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        product()
        times.append(time.perf_counter() - begun)
    return min(times)
