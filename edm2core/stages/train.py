"""Trains a trajectory and commits its snapshots: `torchrun -m edm2core.stages.train TASK --store URI` on any number of processes."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from edm2core.config.fields import weights_file
from edm2core.config.settings import TrajectorySettings
from edm2core.data import load_prepared
from edm2core.data.prepared import Prepared
from edm2core.data.scale import PixelScale
from edm2core.diffusion.compiling import wanted
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.posthoc import THREE_BYTES
from edm2core.diffusion.trainer import Trainer
from edm2core.diffusion.training_state import averaged_weights
from edm2core.errors import InputError, Interrupted
from edm2core.events import emit
from edm2core.plan.manifest import Ref
from edm2core.plan.subject import Subject
from edm2core.plan.tasks import Task, average_ref, snapshot_ref, snapshot_title, trajectory_ref
from edm2core.provenance.origin import code_version, describe
from edm2core.provenance.science import ACCEPT, UNKNOWN, brief, same, science_of, sciences_of
from edm2core.registry import is_own, own_package
from edm2core.snapshots import files as snapshot
from edm2core.snapshots.three_bytes import packed
from edm2core.stages.start import STATE
from edm2core.store.base import Store
from edm2core.store.results import commit, load
from edm2core.store.scratch import Scratch
from edm2core.store.wanted_epochs import wanted_epochs
from edm2core.worker import signals
from edm2core.worker.heartbeat import Heartbeat
from edm2core.worker.main import claim, manifest_of, must_be_of_this_version, own_code, processes, serve, work_folder
from edm2core.worker.states import Background, Copies, State, States
from edm2core.worker.training_curve import Row, TrainingCurve, seconds_of
from edm2core.worker.workspace import Workspace, open_inputs

T = TypeVar("T")
Epochs = tuple[set[int], set[int]]  # that are wanted, and those of them that have a snapshot
ANSWER_S = 1.0  # the most time that training waits for the store to say which epochs are wanted, while it knows some


def work(task: Task, store: Store) -> None:
    """Train until every wanted epoch of the task's trajectory has its snapshot in the store."""
    started = time.time()
    must_be_of_this_version(task)
    with processes() as (rank, world_size):
        ref = trajectory_ref(task)
        with claim(store, ref, rank, world_size) as generation, work_folder(store, ref, rank, generation) as folder:
            inputs, scratch = open_inputs(task, store, folder / "inputs"), Scratch(store, ref.scratch, generation)
            with own_code(task.code, store, folder / "code"):
                Training(Workspace(task, store, folder, scratch, inputs, rank, world_size), started).run()


class Peers:
    """The processes that train together. They must agree on everything that decides which step comes next."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.group: dist.ProcessGroup | None = dist.new_group(backend="gloo") if world_size > 1 else None  # type: ignore[assignment]

    def told(self, answer: Callable[[], T]) -> T:
        """The answer of rank 0, in every process."""
        answers: list[Any] = [answer() if self.rank == 0 else None]
        if self.group is not None:
            dist.broadcast_object_list(answers, src=0, group=self.group)
        told: T = answers[0]
        return told

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any process is to stop, and whether rank 0 is to save. All do so at the same step."""
        if self.group is None:
            return stop, save
        flags = torch.tensor([stop, save and self.rank == 0], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.group)
        return bool(flags[0]), bool(flags[1])

    def meet(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


class Training:
    """One process's part in a trajectory: the loop around the trainer."""

    def __init__(self, work: Workspace, started: float) -> None:
        self.task, self.inputs, self.generation = work.task, work.inputs, work.scratch.generation
        self.peers, self.heartbeat = Peers(work.rank, work.world_size), Heartbeat()
        self.settings = TrajectorySettings.among(work.settings)
        self.curve = TrainingCurve(work)
        self.results = Results(work, self.settings, started)
        self.compiled: Trainer | None = None  # the trainer that compiling was tried for

    def run(self) -> None:
        signals.stop_if_asked()
        data = load_prepared(self.inputs["data"].all())
        _check_data(data, self.settings, self.task.title)
        images, labels = (torch.from_numpy(np.array(array)).to(pick_device()) for array in (data.train_images, data.train_labels))
        self.trainer = self._begin(data.pixel_scale, images, labels)
        if self.peers.rank == 0:
            emit("start", task=self.task.title, generation=self.generation, parameters=_parameters(self.trainer), images=len(images))
        try:
            while epochs := self.peers.told(self.results.missing):
                self._position(epochs[0])
                if self.trainer.steps == epochs[0] * self.trainer.steps_per_epoch:  # it starts there, or was killed before the snapshot
                    self.results.keep(self.trainer, self.curve.rows, epochs, self.results.state(self.trainer))
                else:
                    self._must_have_state()
                    self._epoch(epochs)
            self.results.background.finish()
        finally:
            self.curve.close()

    def _begin(self, pixel_scale: PixelScale, images: Tensor, labels: Tensor | None) -> Trainer:
        """The trajectory's beginning: at step 0, or where the checkpoint that it starts from ended."""
        trainer = Trainer(self.settings, pixel_scale, images, self.peers.rank, self.peers.world_size, labels)
        if start := self.inputs.get("start"):
            ema = safetensors.torch.load_file(start.path(weights_file("fixed")))
            state = safetensors.torch.load_file(start.path(STATE)) if STATE in start.manifest.files else {}
            trainer.start(state, ema, start.manifest.metadata["epoch"], start.manifest.metadata["updates"])
        return trainer

    def _must_have_state(self) -> None:
        """Raise InputError if the checkpoint that training starts from can only be looked at."""
        start = self.inputs.get("start")
        if start and STATE not in start.manifest.files:
            self.results.background.finish()
            what = "The checkpoint holds no optimiser state, so it can be looked at but training cannot go on from it."
            do_next = f"Ask for epoch {self.trainer.epoch} alone, or give the file as the training wrote it."
            raise InputError(what, where=str(start.manifest.settings["source"]), do_next=do_next)

    def _position(self, epoch: int) -> None:
        """Go to the best start of training for the snapshot at `epoch`: here, a saved state nearer to it, or the beginning."""
        target, here = epoch * self.trainer.steps_per_epoch, self.trainer.steps
        at_least, any_science = here + 1 if here <= target else 1, self.task.accept_code
        state = self.peers.told(lambda: self.results.states.load(at_least, target, any_science))
        if state and _may_go_on_from(state, self.task, here > self.trainer.began_at, self.results.store):
            self.curve.rows = state.curve
            self.trainer.load_state(state.tensors)
            where = {"step": self.trainer.steps, "generation": self.generation}
            self.curve.add({"restart": True, **where, **_mark(state, self.task, speak=self.peers.rank == 0)})
            if self.peers.rank == 0:
                emit("restart", task=self.task.title, epoch=self.trainer.epoch, **where)
        elif here > target:
            self.trainer = self._begin(self.trainer.pixel_scale, self.trainer.images, self.trainer.labels)
            self.curve.rows = []
            if self.trainer.steps > target:
                first = self.trainer.epoch
                what = f"Epoch {epoch} is before the checkpoint that this training starts from, which has {first} epochs."
                raise InputError(what, where=self.task.title, do_next=f"Ask for epochs from {first} on.")
        if self.trainer.steps != here or not self.curve.is_open:
            self.curve.open(self.trainer)

    def _epoch(self, wanted: list[int]) -> None:
        """Train to the end of the epoch, saving states on the way, and the epoch's snapshot or stored average if it has one."""
        trainer, results, last = self.trainer, self.results, wanted[-1] * self.trainer.steps_per_epoch
        while True:
            trainer.step()
            if trainer.at_window_end:
                earlier = [epoch * trainer.steps_per_epoch for epoch in results.committed if epoch < wanted[0]]
                self.curve.log(trainer, trainer.close_window(), wanted[0], max([trainer.began_at, *earlier]))
                self._compile((last - trainer.steps) * (self.curve.pace or 0.0))
            stop, save = self.peers.agree(signals.asked(), results.states.due())
            state = results.state(trainer) if stop or save or (trainer.at_epoch_end and trainer.epoch in wanted) else None
            if trainer.at_epoch_end:  # first the results, so that no saved state is ahead of one that is missing
                results.keep(trainer, self.curve.rows, wanted, state)
            if state is not None:
                results.save(trainer, self.curve, state)
            self.heartbeat.step()
            if stop:
                self.heartbeat.pause()
                results.background.finish()
                self.peers.meet()  # torchrun may end the job once one process exits, so none exits before the state is saved
                words = f"Stopped after step {trainer.steps} of {last}; its state is saved."
                raise Interrupted(words, do_next="Run it again to go on from there.")
            if trainer.at_epoch_end:
                self.heartbeat.pause()
                return

    def _compile(self, seconds_left: float) -> None:
        """Compile the network, in all processes, as soon as that pays for what is left."""
        training, trainer = self.settings.training, self.trainer
        if self.compiled is trainer or training.exact or training.grad_checkpoint:
            return
        if not self.peers.told(lambda: wanted(training.compile, trainer.images.device, seconds_left, "training")):
            return
        self.heartbeat.pause()
        self.compiled, begun = trainer, time.monotonic()
        outcome = trainer.compile()
        self.curve.add({"compiled": outcome.adopted, "step": trainer.steps, "seconds": round(time.monotonic() - begun, 3)})
        if self.peers.rank == 0:
            emit("compiled" if outcome.adopted else "warning", task=self.task.title, message=outcome.words)
        self.curve.start_clock(trainer)


class Results:
    """What a training keeps in the store: its states, its snapshots, and averages for mixing others. Rank 0 alone writes."""

    def __init__(self, work: Workspace, settings: TrajectorySettings, started: float) -> None:
        self.task, self.store, self.folder, self.inputs, self.rank = work.task, work.store, work.out, work.inputs, work.rank
        self.settings, self.started, self.trajectory = settings, started, trajectory_ref(work.task)
        self.processes = {"world_size": work.world_size, "generation": work.scratch.generation}
        self.background = Background()
        self.states = States(work.scratch, work.out, self.background, science_of("snapshot"))
        use = settings.network.use
        self.code = {own_package(use): self.task.code[own_package(use)]} if is_own(use) else {}  # of the network
        self.wanted: set[int] = set()  # epochs, as far as the store has said
        self.committed: set[int] = set()  # epochs that have their snapshot, or will once the background has written it
        self._reader = futures.ThreadPoolExecutor(1, "read")
        self._asked: futures.Future[Epochs] | None = None
        self.stalled_s = 0.0  # by the last copying of the state

    def missing(self) -> list[int]:
        """Wanted epochs without a snapshot, ascending.

        While there are some, training waits ANSWER_S at most for what the store says of others, and hears the rest after a later epoch.
        """
        while True:
            asks_now = self._asked is None
            asked = self._asked = self._asked or self._reader.submit(self._ask, set(self.committed))
            some = bool(self.wanted - self.committed)
            futures.wait([asked], (ANSWER_S if asks_now else 0) if some else None)
            if asked.done():
                self._asked = None
                self.wanted, committed = asked.result()
                self.committed |= committed
            if self.wanted - self.committed or asks_now:
                return sorted(self.wanted - self.committed)

    def _ask(self, known: set[int]) -> Epochs:
        wanted = {self.task.settings["epoch"], *self.task.wanted, *wanted_epochs(self.store, self.trajectory)}
        return wanted, {epoch for epoch in wanted - known if load(self.store, snapshot_ref(self.trajectory, epoch)) is not None}

    def state(self, trainer: Trainer) -> Copies | None:
        """The state as it is now, on its way to be copied. All processes call it together, and rank 0 gets it."""
        trainer.gather_window()
        if self.rank:
            return None
        begun = time.monotonic()
        copies = trainer.copies()
        self.stalled_s = time.monotonic() - begun
        return copies

    def save(self, trainer: Trainer, curve: TrainingCurve, state: Copies) -> None:
        """Save the state and the event files in the background."""
        self.states.save(trainer.steps, trainer.steps / trainer.steps_per_epoch, state, list(curve.rows), self.stalled_s)
        self.background.run(curve.upload)

    def keep(self, trainer: Trainer, curve: list[Row], wanted: list[int], state: Copies | None) -> None:
        """Commit the snapshot or the stored averages of the epoch just completed, from the state if it is being copied."""
        if self.rank:
            return
        epoch, rows = trainer.epoch, list(curve)
        names = list(trainer.averages) if trainer.steps > trainer.began_at else ["fixed"]  # a checkpoint has no others
        if epoch in wanted and state is not None:
            counts = {"images_seen": trainer.images_seen(), "nonfinite_steps": trainer.nonfinite_steps}
            facts = {"trajectory": self.trajectory.key, "parameters": _parameters(trainer), **counts}
            facts |= {"code": self.code} if self.code else {}
            self.committed.add(epoch)
            self.background.run(partial(self._snapshot, epoch, state, names, trainer.pixel_scale, facts, rows))
        widths = [name for name in names if name != "fixed"]
        if widths and epoch in self.settings.training.stored_epochs(epoch):
            self.background.run(partial(self._average, epoch, state or trainer.copies("average/"), widths, rows))

    def _snapshot(
        self, epoch: int, state: Copies, names: list[str], pixel_scale: PixelScale, facts: dict[str, Any], rows: list[Row]
    ) -> None:
        weights = {name: averaged_weights(state.result(), name) for name in names}
        out = self.folder / f"snapshot-{epoch}"
        snapshot.save(out, weights, self.settings, pixel_scale, epoch=epoch, code=self.code)
        (out / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        subject, title = replace(self.task.subject, epoch=epoch), snapshot_title(self.task.whose, epoch)
        if start := self.inputs.get("start"):
            facts = {**facts, "start": start.manifest.metadata}
        self._commit(snapshot_ref(self.trajectory, epoch), epoch, title, subject, out, {**facts, "emas": names}, rows)

    def _average(self, epoch: int, averages: Copies, names: list[str], rows: list[Row]) -> None:
        """Averages in three bytes a number, as they are stored for mixing. What is not averaged stands in the snapshot, in full."""
        out = self.folder / f"average-{epoch}"
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            part = f"average/{name}/"
            weights = {k.removeprefix(part): v for k, v in averages.result().items() if k.startswith(part)}
            safetensors.torch.save_file(packed(weights), out / weights_file(name))
        title, facts = f"{self.task.whose} · stored averages at epoch {epoch}", {"trajectory": self.trajectory.key, "bits": THREE_BYTES}
        self._commit(average_ref(self.trajectory, epoch), epoch, title, Subject(), out, facts, rows)

    def _commit(self, ref: Ref, epoch: int, title: str, subject: Subject, out: Path, facts: dict[str, Any], rows: list[Row]) -> None:
        if load(self.store, ref) is None:
            settings = {**self.task.settings, "epoch": epoch}
            task = replace(self.task, stage=ref.stage, key=ref.key, settings=settings, title=title, subject=subject)
            if several := sciences_of(rows):
                facts = {**facts, "sciences": several}
            provenance = {**describe(self.started), **self.processes, "seconds": seconds_of(rows)}
            commit(self.store, manifest_of(task, self.store, self.inputs, out, facts, provenance))
            emit("commit", task=title, ref=str(ref))
        shutil.rmtree(out)


def _check_data(data: Prepared, settings: TrajectorySettings, title: str) -> None:
    """Check and warn of what only the prepared data and this machine show. Raises InputError."""
    network, training = settings.network, settings.training
    if training.precision == "fp16" and not torch.cuda.is_available():
        emit("warning", message="training.precision is fp16, which is hundreds of times slower than fp32 on a CPU.")
    if network.classes not in (0, len(data.classes)):
        what = f"network.classes is {network.classes}; the data set has {len(data.classes)} classes."
        raise InputError(what, where=title, do_next=f"Set network.classes to {len(data.classes)}, or to 0 for an unconditional network.")
    if training.batch > len(data.train_images):
        emit("warning", message=f"training.batch is {training.batch}; a step has all {len(data.train_images)} images there are.")


def _may_go_on_from(state: State, task: Task, trained_here: bool, store: Store) -> bool:
    """Whether this code's science may go on from the state. Raises InputError if other science made it, unless the user accepts that.

    If this science has trained something here already, such a state is passed over instead.
    """
    science = science_of("snapshot")
    if task.accept_code or not state.science or same(state.science, science):
        return True
    if trained_here:  # by this science
        return False
    raise InputError(
        f"The state at step {state.step} was trained by other science ({brief(state.science)}, {state.code}) than this code's "
        f"({brief(science)}, {code_version()}): going on would make one curve of two.",
        where=f"{task.title}, {store.uri}/{trajectory_ref(task).scratch}",
        do_next=f"{ACCEPT} Or use the code that began it, or another store, where it begins anew.",
    )


def _mark(state: State, task: Task, *, speak: bool) -> dict[str, str]:
    """What the curve says if it goes on under other science than before."""
    science = science_of("snapshot")
    if state.science and same(state.science, science):
        return {}
    if speak:
        known = f"other science, {brief(state.science)}" if state.science else "science that was not recorded"
        emit("warning", task=task.title, message=f"goes on from step {state.step} of {known}; curve and snapshots say so")
    return {"science": science, "science_before": state.science or UNKNOWN}


def _parameters(trainer: Trainer) -> int:
    return sum(p.numel() for p in trainer.denoiser.parameters() if p.requires_grad)


if __name__ == "__main__":
    sys.exit(serve(work, "train"))
