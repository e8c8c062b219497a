"""The averages that a training has stored, and the mixing of averages of other widths from them (EDM2, section 3)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edm2core.config.settings import TrainingSettings, TrajectorySettings
from edm2core.diffusion.posthoc import HALF, MOST_ERROR, Mix, lengths, mix_at, rounding, way
from edm2core.errors import InputError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task, average_ref, trajectory_ref
from edm2core.store.base import Store
from edm2core.store.results import load


@dataclass(frozen=True)
class Mixture:
    """How an average of a wanted width is mixed from stored ones."""

    stored: dict[int, Manifest]  # by epoch, all before the snapshot's
    widths: list[str]  # the relative widths of the averages that each of these and the snapshot hold
    sigma_rel: float  # the wanted width
    mix: Mix  # of the stored averages and then the snapshot's, epoch by epoch

    @property
    def rounding(self) -> float:
        """The rounding error of the stored averages, as a share of the weights. The snapshot's own averages are not rounded."""
        shares = self.mix.coefficients[: -len(self.widths)]
        bits = [manifest.metadata.get("bits", HALF) for manifest in self.stored.values() for _ in self.widths]
        return rounding(shares.tolist(), bits)

    def rounding_share(self, weights: Callable[[str], Path]) -> float | None:
        """The rounding error as a share of the distance from the average to the weights.

        `weights` gives the file of the snapshot's average of a width. None if all averages have one width, which gives no distance.
        """
        if len(self.widths) < 2:
            return None
        one, other = self.widths[0], self.widths[-1]
        length, apart = lengths(weights(one), weights(other))
        return self.rounding * length / way(apart, float(one), float(other), self.sigma_rel) if apart else None

    def must_be_fine(self, name: str, where: str, rounding_share: float | None) -> None:
        """Raise InputError if the errors are so large that the average would not be one of the wanted width."""
        if self.mix.error > MOST_ERROR:
            raise InputError(
                f"From the averages stored at {len(self.stored)} epochs before this snapshot, one of relative width {name} would have "
                f"an error of {self.mix.error:.1%}; more than {MOST_ERROR:.0%} says nothing.",
                where=where,
                do_next="Ask for a wider one, or train anew with more epochs stored (training.average_every).",
            )
        if rounding_share is not None and rounding_share > MOST_ERROR:
            raise InputError(
                f"The averages stored before this snapshot are in half precision. In one of relative width {name} its rounding would be "
                f"{self.rounding:.1e} of the weights, {rounding_share:.0%} of the way to them; more than {MOST_ERROR:.0%} says nothing.",
                where=where,
                do_next="Ask for a wider one, or train anew: averages are now stored in three bytes a number.",
            )


def trainings(tasks: Iterable[Task]) -> dict[Ref, Task]:
    """The trajectories of the snapshot tasks among these, which may be of several plans. Each comes with its task that trains longest."""
    known: dict[str, Ref] = {}
    longest: dict[Ref, Task] = {}
    for task in tasks:
        if task.stage == "snapshot":
            settings = repr([task.version, task.inputs, *(task.settings[name] for name in TrajectorySettings.model_fields)])
            if settings not in known:  # a trajectory's key is slow to compute, and all its snapshots share it
                known[settings] = trajectory_ref(task)
            before = longest.setdefault(known[settings], task)
            if _last(task) > _last(before):
                longest[known[settings]] = task
    return longest


def _last(task: Task) -> int:
    return max(int(task.settings["training"]["epochs"]), int(task.settings["epoch"]), *task.wanted)


def averages_of(training: Task, trajectory: Ref) -> set[Ref]:
    """The averages that a training stores until the last epoch that its task asks for."""
    settings = TrainingSettings.model_validate(training.settings["training"])
    return {average_ref(trajectory, epoch) for epoch in settings.stored_epochs(_last(training))}


def all_stored(store: Store, trainings: Mapping[Ref, Task]) -> list[Ref]:
    """The averages of these trainings that are in the store, found by one listing."""
    keys = set(store.folders("results/average/"))
    refs = (average_ref(ref, epoch) for ref, task in trainings.items() for epoch in range(1, _last(task) + 1)) if keys else ()
    return [ref for ref in refs if ref.key in keys]


def stored_averages(store: Store, trajectory: Ref, last: int) -> dict[int, Manifest]:
    """The stored averages of a trajectory by completed epochs, ascending, up to epoch `last`."""
    keys = set(store.folders("results/average/"))
    refs = {epoch: average_ref(trajectory, epoch) for epoch in range(1, last + 1)}
    manifests = {epoch: load(store, ref) for epoch, ref in refs.items() if ref.key in keys}
    return {epoch: manifest for epoch, manifest in manifests.items() if manifest is not None}


def mixture(store: Store, snapshot: Manifest, sigma_rel: float) -> Mixture:
    """How to mix an average of this relative width at a snapshot's epoch. Raises InputError if the snapshot has no averages to mix."""
    epoch, widths = snapshot.metadata["epoch"], [name for name in snapshot.metadata["emas"] if name != "fixed"]
    if not widths:
        none = "This snapshot has no power-function average, so none can be mixed at its epoch."
        do_next = "Set training.ema_sigma_rel before training; at the epoch of an imported checkpoint there is none."
        raise InputError(none, where=f"{store.uri}/{snapshot.ref.folder}", do_next=do_next)
    stored = stored_averages(store, Ref("trajectory", snapshot.metadata["trajectory"]), epoch - 1)
    return Mixture(stored, widths, sigma_rel, mix_at(list(stored), [float(name) for name in widths], epoch, sigma_rel))
