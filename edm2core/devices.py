"""Which device a process works on, and in which precision."""

from __future__ import annotations

import torch

from edm2core.config.settings import Precision

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device() -> torch.device:
    """This process's GPU (torch.cuda.set_device chooses among several), else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """The context in which a network runs in this precision; fp32 changes nothing."""
    return torch.autocast(device_type, DTYPES[precision], enabled=precision != "fp32")
