"""Trains a trajectory and commits its snapshots: `torchrun -m edm2core.stages.train TASK --store URI` on any number of processes."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from edm2core.config.fields import weights_file
from edm2core.config.settings import TrajectorySettings
from edm2core.data import load_prepared
from edm2core.data.scale import Affine
from edm2core.diffusion.compiling import wanted
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.posthoc import THREE_BYTES
from edm2core.diffusion.state_copies import averaged_weights
from edm2core.diffusion.trainer import Trainer
from edm2core.errors import InputError, Interrupted
from edm2core.events import emit
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, average_ref, snapshot_ref, snapshot_title, trajectory_ref
from edm2core.provenance.origin import code_version, describe
from edm2core.provenance.science import ACCEPT, UNKNOWN, brief, same, science_of, sciences_of
from edm2core.snapshots import files as snapshot
from edm2core.snapshots.three_bytes import packed
from edm2core.stages.start import STATE
from edm2core.store.base import Store
from edm2core.store.results import commit, load
from edm2core.store.scratch import Scratch
from edm2core.store.wanted import wanted_epochs
from edm2core.worker import signals
from edm2core.worker.heartbeat import Beat
from edm2core.worker.main import claim, manifest_of, must_be_of_this_version, processes, serve, work_folder
from edm2core.worker.states import Background, Copies, State, States
from edm2core.worker.workspace import open_inputs


def work(task: Task, store: Store) -> None:
    """Train until every wanted epoch of the task's trajectory has its snapshot in the store."""
    started = time.time()
    must_be_of_this_version(task)
    with processes() as (rank, world_size):
        ref = trajectory_ref(task)
        with claim(store, ref, rank, world_size) as generation, work_folder(store, ref, rank, generation) as folder:
            Training(task, store, folder, generation, rank, world_size, started).run()


class Training:
    """One process's part in a trajectory: the loop around the trainer, and on rank 0 everything that is written."""

    def __init__(self, task: Task, store: Store, folder: Path, generation: int, rank: int, world_size: int, started: float) -> None:
        self.task, self.store, self.folder, self.rank, self.world_size = task, store, folder, rank, world_size
        self.trajectory, self.generation, self.started = trajectory_ref(task), generation, started
        self.settings = TrajectorySettings.model_validate({name: task.settings[name] for name in TrajectorySettings.model_fields})
        self.background, self.beat = Background(), Beat()
        self.scratch = Scratch(store, self.trajectory.scratch, generation)
        self.science = science_of("snapshot")
        self.states = States(self.scratch, folder, self.background, self.science)
        self.inputs = open_inputs(task, store, folder / "inputs")
        self.curve: list[dict[str, Any]] = []
        self.group: dist.ProcessGroup | None = dist.new_group(backend="gloo") if world_size > 1 else None  # type: ignore[assignment]
        self.stalled_s = 0.0  # by the last copying of the state
        self.committed: set[int] = set()  # epochs that have their snapshot, or will once the background has written it
        self.clock = time.monotonic(), 0, 0  # at the last row: time, images seen, step
        self.pace: float | None = None  # seconds a step, over the last row's steps; none: they do not tell
        self.positioned_at = 0  # the step that training goes on from here
        self.compiled: Trainer | None = None  # for which compiling was tried

    def run(self) -> None:
        signals.stop_if_asked()
        data = load_prepared(self.inputs["data"].all())
        if self.settings.training.precision == "fp16" and not torch.cuda.is_available():
            emit("warning", message="training.precision is fp16, which is hundreds of times slower than fp32 on a CPU.")
        if self.settings.network.classes not in (0, len(data.classes)):
            raise InputError(
                f"network.classes is {self.settings.network.classes}; the data set has {len(data.classes)} classes.",
                where=self.task.title,
                do_next=f"Set network.classes to {len(data.classes)}, or to 0 for an unconditional network.",
            )
        network = self.settings.network
        shape = (network.image_channels, network.resolution, network.resolution)
        if data.train_images.shape[1:] != shape:
            raise InputError(
                f"The network is for images of shape {list(shape)}, the data's are {list(data.train_images.shape[1:])}.",
                where=self.task.title,
                do_next="Set network.resolution and network.image_channels to the data's, or data.resolution to the network's.",
            )
        if self.settings.training.batch > len(data.train_images):
            emit(
                "warning",
                message=f"training.batch is {self.settings.training.batch}; a step has all {len(data.train_images)} images there are.",
            )
        images, labels = (torch.from_numpy(np.array(array)).to(pick_device()) for array in (data.train_images, data.train_labels))
        self.trainer = self._begin(data.affine, images, labels)
        self.board: SummaryWriter | None = None
        if self.rank == 0:
            emit("start", task=self.task.title, generation=self.generation, parameters=self._parameters(), images=len(images))
        try:
            while epochs := self._missing():
                self._position(epochs[0])
                if self.trainer.steps == epochs[0] * self.trainer.steps_per_epoch:
                    self._keep(epochs, self._state())  # it starts from there, or was killed between the state and the snapshot
                else:
                    self._must_have_state()
                    self._epoch(epochs)
            self.background.finish()
        finally:
            if self.board is not None:
                self._upload_board()
                self.board.close()

    def _begin(self, affine: Affine, images: Tensor, labels: Tensor | None) -> Trainer:
        """The trajectory's beginning: at step 0, or where the checkpoint that it starts from ended."""
        trainer = Trainer(self.settings, affine, images, self.rank, self.world_size, labels)
        if start := self.inputs.get("start"):
            ema = safetensors.torch.load_file(start.path(weights_file("fixed")))
            state = safetensors.torch.load_file(start.path(STATE)) if STATE in start.manifest.files else {}
            trainer.start(state, ema, start.manifest.metadata["epoch"], start.manifest.metadata["updates"])
        return trainer

    def _must_have_state(self) -> None:
        """Raise InputError where the checkpoint that it starts from can only be looked at."""
        start = self.inputs.get("start")
        if start and STATE not in start.manifest.files:
            self.background.finish()
            raise InputError(
                "The checkpoint holds no optimiser state, so it can be looked at but training cannot go on from it.",
                where=str(start.manifest.settings["source"]),
                do_next=f"Ask for epoch {self.trainer.epoch} alone, or give the file as the training wrote it.",
            )

    def _missing(self) -> list[int]:
        """Wanted epochs without a snapshot, ascending; the same in every process."""
        answer: list[list[int]] = [[]]
        if self.rank == 0:
            wanted = {self.task.settings["epoch"], *self.task.wanted, *wanted_epochs(self.store, self.trajectory)}
            self.committed |= {e for e in wanted - self.committed if load(self.store, snapshot_ref(self.trajectory, e)) is not None}
            answer[0] = sorted(wanted - self.committed)
        if self.group is not None:
            dist.broadcast_object_list(answer, src=0, group=self.group)
        return answer[0]

    def _position(self, epoch: int) -> None:
        """Be where training for the snapshot at `epoch` goes on best: here, at a saved state nearer to it, or at the beginning."""
        target, here = epoch * self.trainer.steps_per_epoch, self.trainer.steps
        message: list[State | None] = [None]
        if self.rank == 0:
            message[0] = self.states.load(here + 1 if here <= target else 1, target, any_science=self.task.accept_code)
        if self.group is not None:
            dist.broadcast_object_list(message, src=0, group=self.group)
        if (state := message[0]) and self._may_go_on_from(state):
            self.curve = state.curve
            self.trainer.load_state(state.tensors)
            self._row({"restart": True, "step": self.trainer.steps, "generation": self.generation, **self._mark(state)})
            if self.rank == 0:
                emit("restart", task=self.task.title, step=self.trainer.steps, epoch=self.trainer.epoch, generation=self.generation)
        elif here > target:
            self.trainer = self._begin(self.trainer.affine, self.trainer.images, self.trainer.labels)
            self.curve = []
            if self.trainer.steps > target:
                raise InputError(
                    f"Epoch {epoch} is before the checkpoint that this training starts from, which has {self.trainer.epoch} epochs.",
                    where=self.task.title,
                    do_next=f"Ask for epochs from {self.trainer.epoch} on.",
                )
        if self.trainer.steps != here or self.board is None:
            self._open_board()
            self.positioned_at = self.trainer.steps
            self.clock = time.monotonic(), self.trainer.images_seen(), self.trainer.steps

    def _may_go_on_from(self, state: State) -> bool:
        """Whether its science allows it. Raises InputError where nothing is trained yet and the user has not accepted it."""
        if self.task.accept_code or not state.science or same(state.science, self.science):
            return True
        if self.trainer.steps > self.trainer.began_at:  # what is here is by this science
            return False
        raise InputError(
            f"The state at step {state.step} was trained by other science ({brief(state.science)}, {state.code}) than this code's "
            f"({brief(self.science)}, {code_version()}): going on would make one curve of two.",
            where=f"{self.task.title}, {self.store.uri}/{self.trajectory.scratch}",
            do_next=f"{ACCEPT} Or use the code that began it, or another store, where it begins anew.",
        )

    def _mark(self, state: State) -> dict[str, str]:
        """What the curve says where it goes on under other science than before."""
        if state.science and same(state.science, self.science):
            return {}
        if self.rank == 0:
            known = f"other science, {brief(state.science)}" if state.science else "science that was not recorded"
            words = f"goes on from step {state.step} of {known}; curve and snapshots say so"
            emit("warning", task=self.task.title, message=words)
        return {"science": self.science, "science_before": state.science or UNKNOWN}

    def _open_board(self) -> None:
        """A new event file that replaces what older ones say of the steps to come."""
        if self.rank == 0:
            if self.board is not None:
                self.board.close()
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.trainer.steps + 1)

    def _epoch(self, wanted: list[int]) -> None:
        """Train to the end of the epoch, saving states on the way, and the epoch's snapshot or stored average if it has one."""
        trainer, last = self.trainer, wanted[-1] * self.trainer.steps_per_epoch
        while True:
            trainer.step()
            if trainer.at_window_end:
                self._log(trainer.close_window(), wanted[0])
                self._compile((last - trainer.steps) * (self.pace or 0.0))
            stop, save = self._agree(signals.asked(), self.states.due())
            state = self._state() if stop or save or (trainer.at_epoch_end and trainer.epoch in wanted) else None
            if trainer.at_epoch_end:
                self._keep(wanted, state)  # before the state is saved, so that none is ahead of what should have been kept
            if state is not None:
                self._save(state)
            self.beat.step()
            if stop:
                self.beat.pause()
                self.background.finish()
                if self.group is not None:
                    dist.barrier(group=self.group)  # no process ends before the state is saved
                raise Interrupted(
                    f"Stopped after step {trainer.steps} of {last}; its state is saved.", do_next="Run it again to go on from there."
                )
            if trainer.at_epoch_end:
                self.beat.pause()
                return

    def _compile(self, seconds_left: float) -> None:
        """Compile the network, in all processes, as soon as that pays for what is left."""
        training = self.settings.training
        if self.compiled is self.trainer or training.exact or training.grad_checkpoint:
            return
        answer = [wanted(training.compile, self.trainer.images.device, seconds_left, "training")]
        if self.group is not None:
            dist.broadcast_object_list(answer, src=0, group=self.group)
        if not answer[0]:
            return
        self.beat.pause()
        self.compiled, begun = self.trainer, time.monotonic()
        outcome = self.trainer.compile()
        self._row({"compiled": outcome.adopted, "step": self.trainer.steps, "seconds": round(time.monotonic() - begun, 3)})
        if self.rank == 0:
            emit("compiled" if outcome.adopted else "warning", task=self.task.title, message=outcome.words)
        self.clock = time.monotonic(), self.trainer.images_seen(), self.trainer.steps

    def _agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """What any process wants, all do at the same step."""
        if self.group is None:
            return stop, save
        flags = torch.tensor([stop, save and self.rank == 0], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.group)
        return bool(flags[0]), bool(flags[1])

    def _state(self) -> Copies | None:
        """The state as it is now, on its way to be copied; all processes call it together."""
        self.trainer.gather_window()
        if self.rank:
            return None
        begun = time.monotonic()
        copies = self.trainer.copies()
        self.stalled_s = time.monotonic() - begun
        return copies

    def _save(self, state: Copies) -> None:
        epochs = self.trainer.steps / self.trainer.steps_per_epoch
        self.states.save(self.trainer.steps, epochs, state, list(self.curve), self.stalled_s)
        self.background.run(self._upload_board)

    def _keep(self, wanted: list[int], state: Copies | None) -> None:
        """Commit the snapshot or the stored averages that belong to the epoch just completed, from the state if it is being copied."""
        if self.rank:
            return
        epoch, training = self.trainer.epoch, self.settings.training
        names = list(self.trainer.averages) if self.trainer.steps > self.trainer.began_at else ["fixed"]  # a checkpoint has no others
        if epoch in wanted and state is not None:
            curve, counts = list(self.curve), {"images_seen": self.trainer.images_seen(), "nonfinite_steps": self.trainer.nonfinite_steps}
            self.committed.add(epoch)
            self.background.run(lambda: self._commit_snapshot(epoch, state, names, curve, counts))
        widths = [name for name in names if name != "fixed"]
        if widths and epoch in training.stored_epochs(epoch):
            averages, rows = state or self.trainer.copies("average/"), list(self.curve)
            self.background.run(lambda: self._commit_average(epoch, averages, widths, rows))

    def _commit_snapshot(self, epoch: int, state: Copies, names: list[str], curve: list[dict[str, Any]], counts: dict[str, int]) -> None:
        weights = {name: averaged_weights(state.result(), name) for name in names}
        out = self.folder / f"snapshot-{epoch}"
        snapshot.save(out, weights, self.settings, self.trainer.affine, epoch=epoch)
        (out / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve), encoding="utf-8")
        task = Task(
            "snapshot",
            self.task.version,
            {**self.task.settings, "epoch": epoch},
            self.task.inputs,
            snapshot_ref(self.trajectory, epoch).key,
            snapshot_title(self.task.whose, epoch),
            replace(self.task.subject, epoch=epoch),
        )
        numbers = {"trajectory": self.trajectory.key, "parameters": self._parameters(), **counts}
        if start := self.inputs.get("start"):
            numbers["start"] = start.manifest.metadata
        self._commit(task, out, {**numbers, "emas": list(weights)}, curve)

    def _commit_average(self, epoch: int, averages: Copies, names: list[str], curve: list[dict[str, Any]]) -> None:
        """Averages in three bytes a number, as they are stored for mixing; what is not averaged stands in the snapshot, in full."""
        out = self.folder / f"average-{epoch}"
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            part = f"average/{name}/"
            weights = {k.removeprefix(part): v for k, v in averages.result().items() if k.startswith(part)}
            safetensors.torch.save_file(packed(weights), out / weights_file(name))
        key = average_ref(self.trajectory, epoch).key
        task = Task(
            "average",
            self.task.version,
            {**self.task.settings, "epoch": epoch},
            self.task.inputs,
            key,
            f"{self.task.whose} · stored averages at epoch {epoch}",
        )
        self._commit(task, out, {"trajectory": self.trajectory.key, "bits": THREE_BYTES}, curve)

    def _commit(self, task: Task, out: Path, metadata: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        if load(self.store, task.ref) is None:
            provenance = {
                **describe(self.started),
                "world_size": self.world_size,
                "generation": self.generation,
                "seconds": _seconds(curve),
            }
            if several := sciences_of(curve):
                metadata = {**metadata, "sciences": several}
            commit(self.store, manifest_of(task, self.store, self.inputs, out, metadata, provenance))
            emit("commit", task=task.title, ref=str(Ref(task.stage, task.key)))
        shutil.rmtree(out)

    def _parameters(self) -> int:
        return sum(p.numel() for p in self.trainer.denoiser.parameters() if p.requires_grad)

    def _log(self, row: dict[str, Any], epoch: int) -> None:
        """Add a row to the curve and say how far the snapshot at `epoch` is, from the one before it or the beginning on."""
        now, seen = time.monotonic(), self.trainer.images_seen()
        seconds = now - self.clock[0]
        warm = self.clock[2] > self.positioned_at  # the first row's steps have more to do than those that follow
        self.pace = seconds / max(row["step"] - self.clock[2], 1) if warm else None
        row["images_per_s"] = round((seen - self.clock[1]) / max(seconds, 1e-9), 1)
        row["seconds"] = round(seconds, 3)
        row["peak_memory"] = _peak_memory(self.trainer.images.device)
        self._row(row)
        if self.rank == 0:
            steps, pace = self.trainer.steps_per_epoch, seconds / max(row["step"] - self.clock[2], 1)
            begin = max([self.trainer.began_at, *(earlier * steps for earlier in self.committed if earlier < epoch)])
            part = {"done": row["step"] - begin, "total": epoch * steps - begin, "eta_s": round((epoch * steps - row["step"]) * pace)}
            speed = {"target": epoch, "steps_per_epoch": steps, "seconds_per_step": pace}
            emit("progress", task=snapshot_title(self.task.whose, epoch), **part, **speed, **row)
        self.clock = now, seen, row["step"]

    def _row(self, row: dict[str, Any]) -> None:
        self.curve.append(row)
        if self.board is not None and "loss" in row:
            for name in ("loss", "lr", "relative_update", "images_per_s", "peak_memory", "nonfinite"):
                self.board.add_scalar(name, row[name], row["step"])

    def _upload_board(self) -> None:
        """Keep the event files where TensorBoard finds them, each under the generation that wrote it."""
        if self.board is None:
            return
        self.board.flush()
        for file in sorted((self.folder / "tensorboard").glob("events*")):
            self.store.write(f"{self.trajectory.scratch}/tensorboard/{self.generation:05d}-{file.name}", file.read_bytes())


def _seconds(curve: list[dict[str, Any]]) -> float:
    """Seconds of training up to the curve's end, over all restarts."""
    return float(round(sum(row.get("seconds", 0.0) for row in curve), 1))


def _peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: the device's, or this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(serve(work, "train"))
