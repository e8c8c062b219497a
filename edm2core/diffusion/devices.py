"""Chooses the device that a process works on, the precision, and whether its kernels are deterministic."""

import os

import torch
from torch import Tensor

from edm2core.config.fields import Precision

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device() -> torch.device:
    """This process's GPU (torch.cuda.set_device chooses among several), else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of the CPU's tensor on the device, without waiting for the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """The context in which a network runs in this precision; fp32 changes nothing."""
    return torch.autocast(device_type, DTYPES[precision], enabled=precision != "fp32")


def compute(*, tf32: bool, deterministic: bool = False) -> None:
    """Set how this process computes from here on. Each stage calls it before it uses a network.

    tf32: a GPU may round the factors of float32 convolutions and matrix products to 10 bits. deterministic: every kernel adds in the same
    order each time, and PyTorch raises an error where there is no such kernel. Otherwise cuDNN picks the fastest kernel.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
