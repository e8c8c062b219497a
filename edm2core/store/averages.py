"""The averages that a training has stored, and what others can be mixed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edm2core.config.settings import TrainingSettings
from edm2core.errors import InputError
from edm2core.manifest import Manifest, Ref
from edm2core.plan import Task, TrajectorySettings, average_ref, trajectory_ref
from edm2core.posthoc import MOST_ERROR, Mix, mix_at
from edm2core.store.base import Store
from edm2core.store.results import load


@dataclass(frozen=True)
class Mixture:
    """What a wanted average is mixed from."""

    stored: dict[int, Manifest]  # by epoch, before the snapshot's
    widths: list[str]  # of the averages in each, and in the snapshot
    mix: Mix  # of the stored ones and the snapshot's own, epoch by epoch

    def must_be_fine(self, name: str, where: str) -> None:
        """Raise InputError if the average would not be what it is called."""
        if self.mix.error > MOST_ERROR:
            raise InputError(
                f"From the averages stored at {len(self.stored)} epochs before this snapshot, one of relative width {name} would have "
                f"an error of {self.mix.error:.1%}; more than {MOST_ERROR:.0%} says nothing.",
                where=where,
                do_next="Ask for a wider one, or train anew with more epochs stored (training.average_every).",
            )


def trainings(tasks: Iterable[Task]) -> dict[Ref, Task]:
    """The trajectories of a plan's snapshots, or of several plans', each by the task with the longest training."""
    known: dict[str, Ref] = {}
    found: dict[Ref, Task] = {}
    for task in tasks:
        if task.stage == "snapshot":
            what = repr([task.version, task.inputs, *(task.settings[name] for name in TrajectorySettings.model_fields)])
            if what not in known:  # a trajectory's key is slow to find, and all its snapshots have the same
                known[what] = trajectory_ref(task)
            before = found.setdefault(known[what], task)
            if _last(task) > _last(before):
                found[known[what]] = task
    return found


def _last(task: Task) -> int:
    return max(int(task.settings["training"]["epochs"]), int(task.settings["epoch"]), *task.wanted)


def averages_of(training: Task, trajectory: Ref) -> set[Ref]:
    """The averages that a training stores on the way to the end that its task asks for."""
    settings = TrainingSettings.model_validate(training.settings["training"])
    return {average_ref(trajectory, epoch) for epoch in settings.stored_epochs(_last(training))}


def all_stored(store: Store, trainings: Mapping[Ref, Task]) -> list[Ref]:
    """The averages that are there of these trainings, by one listing."""
    keys = set(store.folders("results/average/"))
    refs = (average_ref(ref, epoch) for ref, task in trainings.items() for epoch in range(1, _last(task) + 1)) if keys else ()
    return [ref for ref in refs if ref.key in keys]


def stored_averages(store: Store, trajectory: Ref, last: int) -> dict[int, Manifest]:
    """The stored averages of a trajectory by completed epochs, up to `last`, ascending."""
    keys = {entry.path.split("/")[2] for entry in store.list("results/average/") if entry.path.endswith("/manifest.json")}
    refs = {epoch: average_ref(trajectory, epoch) for epoch in range(1, last + 1)}
    found = {epoch: load(store, ref) for epoch, ref in refs.items() if ref.key in keys}
    return {epoch: manifest for epoch, manifest in found.items() if manifest is not None}


def mixture(store: Store, snapshot: Manifest, sigma_rel: float) -> Mixture:
    """How to mix an average of this relative width at a snapshot's epoch. Raises InputError where the snapshot has none to mix."""
    epoch, widths = snapshot.metadata["epoch"], [name for name in snapshot.metadata["emas"] if name != "fixed"]
    if not widths:
        raise InputError(
            "This snapshot has no power-function average, so none can be mixed at its epoch.",
            where=f"{store.uri}/{snapshot.ref.folder}",
            do_next="Set training.ema_sigma_rel before training; at the epoch of an imported checkpoint there is none.",
        )
    stored = stored_averages(store, Ref("trajectory", snapshot.metadata["trajectory"]), epoch - 1)
    return Mixture(stored, widths, mix_at(list(stored), [float(name) for name in widths], epoch, sigma_rel))
