"""Energy by NVML, here by a stand-in for the library."""

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edm2core.worker import energy
from edm2core.worker.energy import joules_used

GPU = torch.device("cuda", 0)


class Library:
    """NVML of a machine with one GPU; `fails` names the function that says that it cannot."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def nvmlInit_v2(self) -> int:
        return int(self.fails == "init")

    def nvmlDeviceGetHandleByUUID(self, identifier: bytes, handle: Any) -> int:
        return int(self.fails == "handle" or identifier != b"GPU-1234")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> int:
        millijoules._obj.value = 2500
        return int(self.fails == "energy")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    def there(library: Library | None) -> None:
        def opened(name: str) -> Library:
            if library is None:
                raise OSError(name)
            return library

        monkeypatch.setattr(energy, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": opened}))

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    return there


def test_a_gpu_tells_its_joules(nvml: Any) -> None:
    nvml(Library())
    assert joules_used(GPU) == 2.5


@pytest.mark.parametrize("library", [None, Library("init"), Library("handle"), Library("energy"), SimpleNamespace()])
def test_where_nothing_tells_there_are_none(nvml: Any, library: Any) -> None:
    nvml(library)
    assert joules_used(GPU) is None


def test_a_cpu_tells_nothing() -> None:
    assert joules_used(torch.device("cpu")) is None
