"""Saves a training's states in its scratch, and reads them. Saving does not stall the training; one of the two slots is always whole."""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from edm2core.events import emit
from edm2core.provenance.origin import code_version
from edm2core.provenance.science import same
from edm2core.store.scratch import STATE_SLOTS, Scratch
from edm2core.words import duration

Copies = Future[dict[str, Tensor]]
MAX_INTERVAL_S, COST = 300.0, 0.005  # the most seconds between two states; the share of time that saving them may take


@dataclass(frozen=True)
class State:
    """A saved state: its step, the digest and version of the code that saved it, its tensors, and the curve up to it."""

    step: int
    science: str  # the digest of the code; empty in a state of a version that did not record it
    code: str
    tensors: dict[str, Tensor]
    curve: list[dict[str, Any]]


@dataclass
class Background:
    """One thread that writes while the loop goes on. An error in it is raised by the next call."""

    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "write"))
    _pending: list[Future[None]] = field(default_factory=list)

    def run(self, work: Callable[[], None]) -> None:
        """Do `work` after all earlier work."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(work))

    @property
    def idle(self) -> bool:
        return all(future.done() for future in self._pending)

    def finish(self) -> None:
        """Wait for all work, and raise its errors."""
        while self._pending:
            self._pending.pop(0).result()


class States:
    """Saves and restores the states of one trajectory. `science` is the digest of the code that trains it here."""

    def __init__(self, scratch: Scratch, folder: Path, background: Background, science: str) -> None:
        self._scratch, self._folder, self._background, self._science = scratch, folder, background, science
        self._saved: dict[str, tuple[int, str]] | None = None  # step and science of the state in each slot, once read
        self.interval, self.cost = 5.0, 0.0  # seconds between two states; seconds that the last one took from training
        self._last = time.monotonic()
        self._grace_s = float(os.environ.get("EDM2_GRACE_S", "inf"))  # the most time that a pod that is told to end has to save

    def load(self, at_least: int, at_most: int, any_science: bool = False) -> State | None:
        """The latest whole state between these steps, preferably one saved by the same code. A damaged state is skipped with a warning."""
        if self._saved is None:
            headers = {slot: self._read_header(slot) for slot in STATE_SLOTS}
            self._saved = {slot: (int(header["step"]), header.get("science", "")) for slot, header in headers.items() if header}
        saved = self._saved

        def preference(slot: str) -> tuple[bool, int]:
            step, science = saved[slot]
            return any_science or same(science, self._science), step

        for slot in sorted((slot for slot, (step, _) in saved.items() if at_least <= step <= at_most), key=preference, reverse=True):
            self._background.finish()  # the slot may still be written to
            path = self._scratch.get(slot, self._folder)
            if path is None:
                del saved[slot]
                continue
            with safetensors.safe_open(path, "pt") as file:
                header = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name in json.loads(header.get("channels_last", "[]")):
                tensors[name] = tensors[name].permute(0, 3, 1, 2)
            lines = bytes(tensors.pop("curve").numpy()).decode().splitlines()
            curve = [json.loads(line) for line in lines if line]
            return State(saved[slot][0], header.get("science", ""), header.get("code", ""), tensors, curve)
        return None

    def _read_header(self, slot: str) -> dict[str, str]:
        """What the file of a state says of itself; empty if the slot has none."""
        path = self._scratch.get(slot, self._folder)
        if path is None:
            return {}
        with safetensors.safe_open(path, "pt") as file:
            return dict(file.metadata())

    def due(self) -> bool:
        """Whether it is time for a state, and the last one is written."""
        return time.monotonic() - self._last >= self.interval and self._background.idle

    def save(self, step: int, epochs: float, state: Copies, curve: list[dict[str, Any]], stalled_s: float) -> None:
        """Write a state in the background once it is copied. Copying it stalled the loop for `stalled_s` seconds."""
        saved = self._saved = self._saved or {}
        slot = min(STATE_SLOTS, key=lambda name: saved.get(name, (-1, ""))[0])  # a state far ahead stays until it is reached again
        saved[slot] = step, self._science
        lines = "".join(json.dumps(row) + "\n" for row in curve).encode() or b"\n"
        rows = torch.frombuffer(bytearray(lines), dtype=torch.uint8)
        self._background.run(lambda: self._write(slot, step, epochs, state, rows, stalled_s))

    def _write(self, slot: str, step: int, epochs: float, state: Copies, curve: Tensor, stalled_s: float) -> None:
        tensors = {**state.result(), "curve": curve}
        begun, clock = time.thread_time(), time.monotonic()
        path = self._folder / f"{slot}.safetensors"
        channels_last = [name for name, tensor in tensors.items() if not tensor.is_contiguous()]
        for name in channels_last:  # stored as they lie in memory, which costs no copy
            tensors[name] = tensors[name].permute(0, 2, 3, 1)
        by = {"science": self._science, "code": code_version()}
        safetensors.torch.save_file(tensors, path, {"step": str(step), "channels_last": json.dumps(channels_last), **by})
        self._scratch.put(slot, path, about={"epochs": epochs, **by})
        path.unlink(missing_ok=True)
        self.cost = stalled_s + (0 if torch.cuda.is_available() else time.thread_time() - begun)  # on a CPU, writing takes a core
        self.interval = min(max(self.cost / COST, 5.0), MAX_INTERVAL_S)
        self._last = time.monotonic()
        seconds = self._last - clock
        if 2 * seconds > self._grace_s:  # a pod may be told to end just as the writing of a state begins; this is said once
            short = f"writing a state takes {duration(seconds)}, and a pod that is told to end has {duration(self._grace_s)} for one or two"
            emit("warning", message=f"{short}: set grace_s in the cluster profile to {4 * seconds:.0f} or more")
            self._grace_s = float("inf")
