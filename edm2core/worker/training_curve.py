"""A training's curve as it grows: its rows, the progress that each row tells, and event files for TensorBoard."""

import os
import resource
import sys
import time
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from edm2core.diffusion.trainer import Trainer
from edm2core.events import emit
from edm2core.plan.tasks import snapshot_title
from edm2core.worker.trainer_status import TrainerStatus
from edm2core.worker.workspace import Workspace

SCALARS = ("loss", "lr", "relative_update", "images_per_s", "peak_memory", "nonfinite")  # the columns that TensorBoard draws
Row = dict[str, Any]


class TrainingCurve:
    """The rows of one training in this process. Rank 0 alone emits progress and writes event files."""

    def __init__(self, work: Workspace) -> None:
        self.work, self.folder = work, work.out / "tensorboard"
        self.rows: list[Row] = []
        self.pace: float | None = None  # seconds for a step of the last row; None if it was the first row, whose steps take longer
        self._board: SummaryWriter | None = None
        self._trainer = TrainerStatus(os.environ)
        self._opened_at: int | None = None  # the step from which training goes on in this process

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def open(self, trainer: Trainer) -> None:
        """Begin or go on at the trainer's step. The new event file replaces what older ones say of later steps."""
        if self.work.rank == 0:
            if self._board is not None:
                self._board.close()
            self._board = SummaryWriter(str(self.folder), purge_step=trainer.steps + 1)
        self._opened_at = trainer.steps
        self.start_clock(trainer)

    def start_clock(self, trainer: Trainer) -> None:
        """Begin to measure the time of the next row."""
        self._clock = time.monotonic(), trainer.images_seen(), trainer.steps

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if self._board is not None and "loss" in row:
            for name in SCALARS:
                self._board.add_scalar(name, row[name], row["step"])

    def log(self, trainer: Trainer, row: Row, epoch: int, begin: int) -> None:
        """Add the trainer's row, and emit how far it is from step `begin` to the snapshot at `epoch`."""
        since, images, step = self._clock
        seconds, steps = time.monotonic() - since, max(row["step"] - step, 1)
        self.pace = seconds / steps if step > (self._opened_at or 0) else None  # the first row's steps have more to do than later ones
        row["images_per_s"] = round((trainer.images_seen() - images) / max(seconds, 1e-9), 1)
        row["seconds"] = round(seconds, 3)
        row["peak_memory"] = _peak_memory(trainer.images.device)
        self.add(row)
        if self.work.rank == 0:
            end = epoch * trainer.steps_per_epoch
            part = {"done": row["step"] - begin, "total": end - begin, "eta_s": round((end - row["step"]) * seconds / steps)}
            speed = {"target": epoch, "steps_per_epoch": trainer.steps_per_epoch, "seconds_per_step": seconds / steps}
            emit("progress", task=snapshot_title(self.work.task.whose, epoch), **part, **speed, **row)
            last = max([epoch, *self.work.task.wanted]) * trainer.steps_per_epoch
            numbers = {name: row.get(name) for name in ("loss", "lr", "images_per_s")}
            self._trainer.tell(row["step"] / last, (last - row["step"]) * seconds / steps, numbers)
        self.start_clock(trainer)

    def upload(self) -> None:
        """Keep the event files where TensorBoard finds them, each under the generation that wrote it."""
        if self._board is None:
            return
        self._board.flush()
        scratch = self.work.scratch
        for file in sorted(self.folder.glob("events*")):
            self.work.store.write(f"{scratch.prefix}/tensorboard/{scratch.generation:05d}-{file.name}", file.read_bytes())

    def close(self) -> None:
        self._trainer.close()
        self.upload()
        if self._board is not None:
            self._board.close()


def seconds_of(rows: list[Row]) -> float:
    """Seconds of training up to the last row, over all restarts."""
    return float(round(sum(row.get("seconds", 0.0) for row in rows), 1))


def _peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: the device's, or this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
