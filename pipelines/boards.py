"""The event files of a store's trainings, brought to where TensorBoard can read them."""

from __future__ import annotations

from pathlib import Path

from edm2core.manifest import Ref
from edm2core.plan import trajectory_ref
from edm2core.store.base import Store
from edm2core.store.runs import list_runs, load_plan


def bring(store: Store, folder: Path) -> int:
    """Copy what is new below `folder`, a folder for each training, named by recipe, seed and key; returns how many files there are."""
    count = 0
    for ref, name in _trainings(store).items():
        for entry in store.list(f"{ref.scratch}/tensorboard/"):
            count += 1
            path = folder / name / entry.path.rpartition("/")[2]
            if not path.exists() or path.stat().st_size != entry.size:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(store.read(entry.path))  # in place, as TensorBoard keeps the file open and reads on
    return count


def _trainings(store: Store) -> dict[Ref, str]:
    found: dict[Ref, str] = {}
    for run in list_runs(store):
        for task in load_plan(store, run)[1]:
            if task.stage == "snapshot":
                ref = trajectory_ref(task)
                found[ref] = f"{task.subject['recipe']}-seed{task.subject['seed']}-{ref.key[:6]}".replace("/", "-")
    return found
