"""Stores and runs as objects: results, snapshots, samples and curves. Nothing here imports torch before a snapshot is loaded."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edm2core.config.validate import unknown
from edm2core.data import Prepared, load_prepared
from edm2core.errors import InputError
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.report import RunInfo, collect
from edm2core.report.collect import CURVE, lines_of
from edm2core.report.results import rows
from edm2core.store import default_store, find_store
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.runs import Run, find_run, load_plan
from edm2core.store.summary import epochs_in_words, list_one, listing

if TYPE_CHECKING:
    import pandas

    from edm2core.diffusion.denoiser import Denoiser


def open(store: str | Path | None = None) -> "OpenStore":
    """The store at a path, minio://bucket/prefix or s3://bucket/prefix. By default it is EDM2_STORE, else ./edm2-store.

    Raises InputError if there is none.
    """
    address = default_store(store)
    return OpenStore(address, find_store(address))


class Rows(tuple[Any, ...]):
    """Rows of numbers, each a record with named fields or a dictionary."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no rows"

    def dicts(self) -> list[dict[str, Any]]:
        """Each row as a dictionary."""
        return [asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row) for row in self]

    def frame(self) -> "pandas.DataFrame":
        """The rows as a data frame. Raises InputError if pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise InputError("A data frame needs pandas.", do_next="pip install pandas, or use .dicts().") from None
        return pandas.DataFrame(self.dicts())


@dataclass(frozen=True)
class OpenStore:
    """A store that exists."""

    address: str
    store: Store

    def runs(self) -> list["OpenRun"]:
        """Every run, the last started first."""
        return [OpenRun(Run(listed.id, self.store)) for listed in listing(self.store)]

    def run(self, id: str) -> "OpenRun":
        """One run. Raises InputError, which names those there are, if there is no such run."""
        return OpenRun(find_run(id, self.address))

    def __repr__(self) -> str:
        return f"edm2.open({self.address!r})"


@dataclass(frozen=True)
class OpenRun:
    """A run of an experiment. What is read of it is what the store has now."""

    run: Run

    def __repr__(self) -> str:
        listed = list_one(self.run.store, self.id)
        if listed is None:
            return self.id
        facts = (listed.state, ", ".join(listed.summary.recipes), epochs_in_words(listed.summary.epochs))
        return " · ".join(filter(None, (self.id, *facts)))

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def address(self) -> str:
        """STORE/runs/ID, which every command takes."""
        return f"{self.run.store.uri}/{self.run.folder}"

    @property
    def report(self) -> str:
        """The address of its report."""
        return f"{self.address}/report.html"

    @cached_property
    def plan(self) -> Plan:
        """Its tasks and recipes."""
        return load_plan(self.run.store, self.id)[1]

    @property
    def recipes(self) -> list[str]:
        return list(dict.fromkeys(task.subject.recipe for task in self.plan if task.subject.recipe))

    @property
    def results(self) -> Rows:
        """Every value that was measured: data set, recipe, seed, epoch, EMA, draw, n, protocol, metric, value and its errors."""
        report = collect(self.id, self.plan, self.run.store, RunInfo(), pictures=False)
        return Rows(rows(report))

    def snapshot(self, recipe: str, *, seed: int | None = None, epoch: int | None = None, ema: str | float | None = None) -> "Denoiser":
        """The network at an epoch, frozen: the first seed and the last finished epoch unless they are named.

        `ema` is fixed or a relative width that the run has; by default the first that the recipe samples from.
        Raises InputError if there is no such snapshot.
        """
        from edm2.snapshots import snapshot_of

        return snapshot_of(self, recipe, seed, epoch, ema).load()

    def samples(
        self, recipe: str, *, seed: int | None = None, epoch: int | None = None, ema: str | None = None, draw: int = 0
    ) -> NDArray[np.uint8]:
        """The images that were drawn from a snapshot: uint8 [N, C, H, W]. Seed, epoch and EMA are chosen as in `snapshot`."""
        tasks = [task for task in self.plan if task.stage == "sample" and not task.subject.recheck and task.subject.draw == draw]
        emas = list(dict.fromkeys(task.subject.ema for task in tasks))
        if ema is not None and ema not in emas:
            raise InputError(f"The run has no samples of the EMA {ema}.", where=self.address, do_next=f"It has {', '.join(emas)}.")
        chosen = [task for task in tasks if task.subject.ema == (ema or emas[0])]
        manifest = self.finished(chosen, recipe, seed, epoch, "samples")
        names = sorted(name for name in manifest.files if name.startswith("samples-"))
        with tempfile.TemporaryDirectory() as folder:
            return np.concatenate([np.load(file, allow_pickle=False) for file in self._fetch(manifest, names, folder)])

    def curve(self, recipe: str, *, seed: int | None = None) -> Rows:
        """The training's curve up to its last snapshot: a row for every few steps, with step, epoch, loss, learning rate and speed."""
        manifest = self.finished([task for task in self.plan if task.stage == "snapshot"], recipe, seed, None, "snapshot")
        with tempfile.TemporaryDirectory() as folder:
            return Rows(lines_of(self._fetch(manifest, [CURVE], folder)[0].read_bytes()))

    def data(self, recipe: str | None = None) -> Prepared:
        """The prepared images of a recipe's data set, by default of the first recipe's: uint8 [N, C, H, W], mapped from disk."""
        snapshots = [task for task in self.plan if task.stage == "snapshot"]
        own = [self.plan.by_ref[task.inputs["data"]] for task in self.of_recipe(snapshots, recipe or self.recipes[0])]
        manifest = load(self.run.store, own[0].ref)
        if manifest is None:
            raise InputError("The data are not prepared yet.", where=self.address, do_next="Run the experiment.")
        folder = tempfile.mkdtemp(prefix="edm2-data-")  # only what a remote store downloads lies there
        return load_prepared(self._fetch(manifest, manifest.files, folder)[0].parent)

    def of_recipe(self, tasks: Sequence[Task], recipe: str) -> list[Task]:
        """The tasks of a recipe, which may be named as in titles. Raises InputError if the run has no such recipe."""
        own = [task for task in tasks if recipe in (task.subject.recipe, task.short)]
        if own:
            return own
        raise InputError(unknown("recipe", recipe, recipe, self.recipes), where=self.address, do_next="Name one of the run's recipes.")

    def finished(self, tasks: Sequence[Task], recipe: str, seed: int | None, epoch: int | None, what: str) -> Manifest:
        """The manifest of the task that is chosen by recipe, seed and epoch. Raises InputError if there is none that is finished."""
        own = self.of_recipe(tasks, recipe)
        for name, value in (("seed", seed if seed is not None else own[0].subject.seed), ("epoch", epoch)):
            has = sorted({getattr(task.subject, name) for task in own})
            if value is not None and value not in has:
                listed = ", ".join(map(str, has))
                raise InputError(f"{recipe} has no {name} {value} in this run.", where=self.address, do_next=f"It has {listed}.")
            own = [task for task in own if value is None or getattr(task.subject, name) == value]
        for task in sorted(own, key=lambda task: -task.subject.epoch):
            if (manifest := load(self.run.store, task.ref)) is not None:
                return manifest
        raise InputError(f"{recipe} has no finished {what} there yet.", where=self.address, do_next="Run the experiment.")

    def _fetch(self, manifest: Manifest, names: Iterable[str], folder: str) -> list[Path]:
        return [self.run.store.fetch(manifest.path(name), Path(folder), manifest.files[name]) for name in names]
