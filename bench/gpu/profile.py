"""Where a training step's time on the device goes, by kind of kernel."""

import time

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from bench.network import trainer
from bench.worker import Work

STEPS = 5
KINDS: dict[str, tuple[str, ...]] = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "copies": ("memcpy", "memset", "copy", "nchwtonhwc", "nhwctonchw", "transpose", "catarray", "aten::cat", "contiguous"),
    "convolution": ("conv", "fprop", "dgrad", "wgrad", "winograd", "cudnn"),
    "matrix products": ("gemm", "nvjet", "cublas", "gemv", "aten::mm", "aten::addmm", "aten::bmm", "dot"),
    "norms and sums": ("norm", "welford", "moments", "triton_red", "triton_per", "reduce", "aten::sum", "aten::mean"),
    "elementwise": (
        "elementwise",
        "triton_poi",
        "foreach",
        "multi_tensor",
        "adam",
        "lerp",
        "vectorized",
        "index",
        "distribution",
        "aten::",
    ),
}
"""Kinds of kernels, and what a name of theirs holds. The first kind that fits counts; what fits none is "other"."""


def kind_of(kernel: str) -> str:
    """The kind of a kernel, of CUDA or one of torch's operators on a CPU, by its name."""
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def step_by_kind(recipe: str, batch: int, images: int, device: str, compiled: bool = False) -> Work:
    """A training step in bf16: `seconds`, the share of it that each kind of kernel takes, and that in which the device is `idle`.

    Each of the ten longest kernels is reported as well, as `kernel NAME`.
    """
    trained = trainer(recipe, batch, {"training.precision": "bf16"}, images, device)
    trained.step()
    if compiled and not (outcome := trained.compile()).adopted:
        raise RuntimeError(outcome.words)
    trained.step()

    def work() -> dict[str, float]:
        on_gpu = device == "cuda"
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
            begun = time.perf_counter()
            for _ in range(STEPS):
                trained.step()
            if on_gpu:
                torch.cuda.synchronize()
            wall = time.perf_counter() - begun
        where = DeviceType.CUDA if on_gpu else DeviceType.CPU
        kernels: dict[str, float] = {}
        for event in profiled.key_averages():
            if event.device_type == where:
                taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
                kernels[event.key] = kernels.get(event.key, 0.0) + taken / 1e6 / wall
        return {"seconds": wall / STEPS, **shares(kernels)}

    return work


def shares(kernels: dict[str, float]) -> dict[str, float]:
    """The share of time of each kind, the idle rest, and the ten longest kernels, from each kernel's share of the time."""
    kinds = dict.fromkeys((*KINDS, "other"), 0.0)
    for kernel, part in kernels.items():
        kinds[kind_of(kernel)] += part
    longest = sorted(kernels, key=kernels.__getitem__, reverse=True)[:10]
    return {**kinds, "idle": max(0.0, 1 - sum(kinds.values())), **{f"kernel {name}": kernels[name] for name in longest}}
