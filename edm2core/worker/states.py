"""States of a trajectory in its scratch: saved without stalling the loop, in two slots of which one is always whole."""

from __future__ import annotations

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

Copies = Future[dict[str, Tensor]]
MAX_INTERVAL_S, COST = 300.0, 0.005  # a kill loses at most five minutes; saving takes at most this share of the time


@dataclass(frozen=True)
class State:
    """A saved state: the step it was taken at, by which science and version of the code, its tensors, and the curve up to it."""

    step: int
    science: str  # empty where it was not recorded yet
    code: str
    tensors: dict[str, Tensor]
    curve: list[dict[str, Any]]


@dataclass
class Background:
    """One thread that writes while the loop goes on; an error of its surfaces at the next call."""

    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "write"))
    _pending: list[Future[None]] = field(default_factory=list)

    def run(self, work: Callable[[], None]) -> None:
        """Do `work` after what was given before it."""
        self.check()
        self._pending.append(self._pool.submit(work))

    @property
    def idle(self) -> bool:
        return all(future.done() for future in self._pending)

    def check(self) -> None:
        """Raise what finished work raised."""
        for future in [f for f in self._pending if f.done()]:
            self._pending.remove(future)
            future.result()

    def finish(self) -> None:
        """Wait for everything, and raise what it raised."""
        while self._pending:
            self._pending.pop(0).result()


class States:
    """Saves and restores the states of one trajectory, which is trained by `science`."""

    def __init__(self, scratch: Scratch, folder: Path, background: Background, science: str) -> None:
        self._scratch, self._folder, self._background, self._science = scratch, folder, background, science
        self._steps: dict[str, int] | None = None  # by slot, once looked at
        self._sciences: dict[str, str] = {}  # by slot
        self.interval, self.cost = 5.0, 0.0  # seconds between two states; seconds that the last one took from training
        self._last = time.monotonic()
        self._grace_s = float(os.environ.get("EDM2_GRACE_S", "inf"))  # what a pod that is told to end has for all of that

    def load(self, at_least: int, at_most: int, any_science: bool = False) -> State | None:
        """The latest whole state of these steps, if possible one by the same science; a damaged one is passed over, saying so."""
        if self._steps is None:
            self._steps = {slot: step for slot in STATE_SLOTS if (step := self._read_step(slot)) is not None}
        usable = [slot for slot, step in self._steps.items() if at_least <= step <= at_most]
        steps, sciences = self._steps, self._sciences
        for slot in sorted(usable, key=lambda slot: (any_science or same(sciences[slot], self._science), steps[slot]), reverse=True):
            self._background.finish()  # it may be being written
            path = self._scratch.get(slot, self._folder)
            if path is None:
                del self._steps[slot]
                continue
            with safetensors.safe_open(path, "pt") as file:
                facts = file.metadata()
                turned = json.loads(facts.get("channels_last", "[]"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name in turned:
                tensors[name] = tensors[name].permute(0, 3, 1, 2)
            curve = bytes(tensors.pop("curve").numpy()).decode().splitlines()
            rows = [json.loads(line) for line in curve if line]
            return State(self._steps[slot], facts.get("science", ""), facts.get("code", ""), tensors, rows)
        return None

    def _read_step(self, slot: str) -> int | None:
        path = self._scratch.get(slot, self._folder)
        if path is None:
            return None
        with safetensors.safe_open(path, "pt") as file:
            self._sciences[slot] = file.metadata().get("science", "")
            return int(file.metadata()["step"])

    def due(self) -> bool:
        """Whether it is time for a state, and the last one is written."""
        return time.monotonic() - self._last >= self.interval and self._background.idle

    def save(self, step: int, epochs: float, state: Copies, curve: list[dict[str, Any]], stalled_s: float) -> None:
        """Write a state in the background once it is copied; `stalled_s` is how long that held up the loop."""
        steps = self._steps = self._steps or {}
        slot = min(STATE_SLOTS, key=lambda name: steps.get(name, -1))  # the older; a state far ahead stays until it is reached again
        steps[slot], self._sciences[slot] = step, self._science
        lines = "".join(json.dumps(row) + "\n" for row in curve).encode()
        self._background.run(lambda: self._write(slot, step, epochs, state, _bytes(lines), stalled_s))

    def _write(self, slot: str, step: int, epochs: float, state: Copies, curve: Tensor, stalled_s: float) -> None:
        tensors = {**state.result(), "curve": curve}
        begun, clock = time.thread_time(), time.monotonic()
        path = self._folder / f"{slot}.safetensors"
        turned = [name for name, tensor in tensors.items() if not tensor.is_contiguous()]
        for name in turned:  # channels_last: stored as they lie, which costs no copy
            tensors[name] = tensors[name].permute(0, 2, 3, 1)
        by = {"science": self._science, "code": code_version()}
        safetensors.torch.save_file(tensors, path, {"step": str(step), "channels_last": json.dumps(turned), **by})
        self._scratch.put(slot, path, about={"epochs": epochs, **by})
        path.unlink(missing_ok=True)
        self.cost = stalled_s + (0 if torch.cuda.is_available() else time.thread_time() - begun)  # a CPU's cores are taken from training
        self.interval = min(max(self.cost / COST, 5.0), MAX_INTERVAL_S)
        self._last = time.monotonic()
        self._compare_with_grace(self._last - clock)

    def _compare_with_grace(self, took_s: float) -> None:
        """Say, once, that a pod's grace may be too short: it may be told to end just as a state begins to be written."""
        if 2 * took_s > self._grace_s:
            words = f"writing a state takes {took_s:.0f} s, and a pod that is told to end has {self._grace_s:.0f} s for one or two"
            emit("warning", message=f"{words}: set grace_s in the cluster profile to {4 * took_s:.0f} or more")
            self._grace_s = float("inf")


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data or b"\n"), dtype=torch.uint8)
