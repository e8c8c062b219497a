"""The energy that a GPU uses, by NVIDIA's management library (NVML). The driver brings it, so nothing has to be installed."""

import ctypes
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"


def joules_used(device: torch.device) -> float | None:
    """Joules that the whole GPU has used since its driver was loaded; the difference of two calls is what lies between them.

    None where nothing tells: on a CPU, without NVML, on a GPU older than Volta, and on a part of a GPU (MIG).
    """
    if device.type != "cuda":
        return None
    try:
        nvml = ctypes.CDLL(LIBRARY)
        return _read(nvml, f"GPU-{torch.cuda.get_device_properties(device).uuid}") if not nvml.nvmlInit_v2() else None
    except (OSError, AttributeError):  # no such library, or an older one; a torch that does not tell the GPU's identifier
        return None


def _read(nvml: Any, identifier: str) -> float | None:
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlDeviceGetHandleByUUID(identifier.encode(), ctypes.byref(handle)):
        return None
    if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
        return None
    return millijoules.value / 1000
