"""Copies of a training's state, made beside its steps.

A state is a mapping of named tensors; its numbers are JSON in one of them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Copier:
    """Copies tensors off the device while the next step runs; `settle` waits before that step changes them."""

    def __init__(self) -> None:
        self.waited_s = 0.0  # by all steps together
        self._thread = ThreadPoolExecutor(1, "copy")
        self._copying: list[Future[dict[str, Tensor]]] = []

    def copy(self, tensors: Mapping[str, Tensor]) -> Future[dict[str, Tensor]]:
        """The tensors as they are now, on the CPU. A GPU's are copied within the GPU first, so that no step waits."""
        finished, rest = {}, {}
        for name, tensor in tensors.items():
            if tensor.is_cuda:
                rest[name] = tensor.clone(), torch.empty_like(tensor, device="cpu")
            elif name.startswith(("weights/", "window/")):  # A step changes these from its beginning on.
                finished[name] = tensor.clone()
            else:  # Memory is allocated here: a thread would get fresh pages from the kernel each time.
                rest[name] = tensor, torch.empty_like(tensor)
        done = torch.cuda.Event() if any(tensor.is_cuda for tensor in tensors.values()) else None  # type: ignore[no-untyped-call]
        if done is not None:
            done.record()

        def work() -> dict[str, Tensor]:
            with contextlib.nullcontext() if done is None else _stream_after(done):
                return finished | {name: memory.copy_(tensor) for name, (tensor, memory) in rest.items()}

        future = self._thread.submit(work)
        if done is None:
            self._copying.append(future)
        return future

    def settle(self) -> None:
        """Wait until nothing is being copied from memory that the coming step changes."""
        begun = time.monotonic()
        while self._copying:
            self._copying.pop().result()
        self.waited_s += time.monotonic() - begun


def averaged_weights(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The denoiser's state dict with the weights of one average, from a state or its parts `weights/` and `average/`."""
    parts = ("weights/", f"average/{name}/")
    return {key.removeprefix(part): value for part in parts for key, value in state.items() if key.startswith(part)}


def as_tensor(numbers: Mapping[str, Any]) -> Tensor:
    """Numbers as JSON in a tensor of bytes."""
    return torch.frombuffer(bytearray(json.dumps(numbers).encode()), dtype=torch.uint8)


def as_numbers(tensor: Tensor) -> dict[str, Any]:
    """What `as_tensor` was given."""
    numbers: dict[str, Any] = json.loads(bytes(tensor.numpy()))
    return numbers


@contextlib.contextmanager
def _stream_after(event: torch.cuda.Event) -> Iterator[None]:
    """A CUDA stream for copies of what was there at the event; they are done on leaving."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_event(event)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()
