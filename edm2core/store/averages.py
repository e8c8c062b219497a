"""The averages that a training has stored, and what others can be mixed from them."""

from __future__ import annotations

from dataclasses import dataclass

from edm2core.errors import InputError
from edm2core.manifest import Manifest, Ref
from edm2core.plan import average_ref
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
