"""The machine's own limit: its fastest matrix product, measured in the same run as what is compared with it."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.worker import Work

SIDE = 2048


def sgemm() -> Work:
    """`rate` in FLOP/s of a float32 product of two 2048×2048 matrices by MKL or by oneDNN, whichever is faster.

    On processors that are not Intel's, MKL keeps to AVX2, where oneDNN uses AVX-512 too.
    """
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    blocked, transposed = a.to_mkldnn(), b.T.contiguous().to_mkldnn()

    def work() -> dict[str, float]:
        with torch.inference_mode():
            return {"rate": 2 * SIDE**3 / min(_seconds(lambda: torch.mm(a, b)), _seconds(lambda: F.linear(blocked, transposed)))}

    return work


def bf16(device: str = "cuda", side: int = 8192) -> Work:
    """`rate` in FLOP/s of a bf16 product of two square matrices on the device."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def product() -> None:
        torch.mm(a, b)
        wait()

    return lambda: {"rate": 2 * side**3 / _seconds(product, 20)}


def copy(device: str = "cuda", size: int = 2**32) -> Work:
    """`rate` in bytes a second, read and written, of a copy of `size` bytes within the device's memory."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def once() -> None:
        target.copy_(source)
        wait()

    return lambda: {"rate": 2 * size / _seconds(once, 20)}


def _seconds(product: Callable[[], object], calls: int = 5) -> float:
    """The fastest of a few calls: a limit is what the machine can do when it is let."""
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        product()
        times.append(time.perf_counter() - begun)
    return min(times)
