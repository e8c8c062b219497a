"""The energy that a GPU uses, by NVIDIA's management library (NVML). The driver brings it, so nothing has to be installed."""

import ctypes

import torch

LIBRARY = "libnvidia-ml.so.1"


def joules_used(device: torch.device) -> float | None:
    """Joules that the whole GPU has used since its driver was loaded; the difference of two calls is what lies between them.

    None where nothing tells: on a CPU, without NVML, on a GPU older than Volta, and on a part of a GPU (MIG).
    """
    if device.type != "cuda":
        return None
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    try:
        nvml, identifier = ctypes.CDLL(LIBRARY), f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        failed = (
            nvml.nvmlInit_v2()
            or nvml.nvmlDeviceGetHandleByUUID(identifier, ctypes.byref(handle))
            or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        )
        return None if failed else millijoules.value / 1000
    except (OSError, AttributeError):  # no such library, or an older one; a torch that does not tell the GPU's identifier
        return None
