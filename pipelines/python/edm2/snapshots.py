"""Finds a snapshot by its address: of a result in a store, of a run's recipe, or of a folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edm2.stores import OpenRun
from edm2core.config.fields import OWN, average_name
from edm2core.errors import InputError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.store import default_store, find_store, split_address
from edm2core.store.own_code import bring_for_good
from edm2core.store.results import load
from edm2core.store.runs import find_run

if TYPE_CHECKING:
    from edm2core.diffusion.denoiser import Denoiser

FORMS = "Give RUN:RECIPE/SEED/EPOCH, STORE/results/snapshot/KEY, snapshot/KEY of the default store, or a folder with snapshot.json."

NOT_HOW = ("draw", "draws", "ema", "count", "batch", "shard", "compile")  # settings of sampling that do not say how an image is drawn


@dataclass(frozen=True)
class Snapshot:
    """A snapshot, and which of its averages is meant."""

    address: str  # a folder, or STORE/results/STAGE/KEY
    ema: str
    title: str
    recipe: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)  # the settings that its recipe samples with
    manifest: Manifest | None = None  # None of a folder
    measured: Mapping[str, float] = field(default_factory=dict)  # by the run, at this epoch and of this average
    samples: int = 0  # how many samples that was measured of
    guide: tuple[str, str] | None = None  # address and average of the snapshot that guides its recipe's samples
    code: Mapping[str, str] = field(default_factory=dict)  # the own code that its recipe samples with: package → its content

    def load(self) -> "Denoiser":
        """Its network, frozen, float32 on the CPU, and with it the own code that its recipe samples with.

        Raises InputError if it has no such average, IntegrityError if it is damaged, MissingError if the store lacks own code.
        """
        from edm2core.snapshots import files

        if self.code:
            bring_for_good(self.code, find_store(split_address(self.address, "results", "")[0]))
        return files.load(self.address, self.ema)

    def load_guide(self) -> "Denoiser | None":
        """The network that guides its recipe's samples, if one does. Raises InputError if it is not finished."""
        from edm2core.snapshots import files

        return files.load(*self.guide) if self.guide else None


def find_snapshot(address: str | Path, *, store: str | Path | None = None, ema: str | float | None = None) -> Snapshot:
    """The snapshot at RUN:RECIPE/SEED/EPOCH, STORE/results/snapshot/KEY, snapshot/KEY in `store`, or a folder with snapshot.json.

    In the first form seed and epoch may be left out: the first seed and the last finished epoch are then meant. RUN is a run's id in
    `store`, or STORE/runs/ID. `ema` is fixed or a relative width. Raises InputError if there is no such snapshot.
    """
    text, where = str(address), default_store(store)
    if (Path(text) / "snapshot.json").is_file():
        return Snapshot(text, name_of(ema) or "fixed", Path(text).resolve().name)
    uri, result = split_address(text.removesuffix("/manifest.json"), "results", where)
    if result.count("/") == 1 and result.startswith(("snapshot/", "ema/")):
        return _at(uri, Ref.parse(result), ema)
    run, separator, rest = text.rpartition(":")
    if not separator or rest.startswith("//"):
        raise InputError(f"There is no snapshot {text}.", where=text, do_next=FORMS)
    names = rest.split("/")
    numbers: list[int] = []
    while len(names) > 1 and len(numbers) < 2 and names[-1].isdecimal():
        numbers.insert(0, int(names.pop()))
    seed, epoch = (*numbers, None, None)[:2]
    return snapshot_of(OpenRun(find_run(run, where)), "/".join(names), seed, epoch, ema)


def snapshot_of(run: OpenRun, recipe: str, seed: int | None, epoch: int | None, ema: str | float | None) -> Snapshot:
    """The snapshot of a run's recipe. Raises InputError if there is none."""
    snapshots = [task for task in run.plan if task.stage == "snapshot"]
    sampled = [task for task in run.plan if task.stage == "sample" and not task.subject.recheck]
    drawing = [task for task in sampled if recipe in (task.subject.recipe, task.short)]
    settings = drawing[0].settings if drawing else {}
    average = name_of(ema) or (settings.get("ema") or ["fixed"])[0]
    # Recipes that differ in how they sample share a training, whose tasks are of the first of them.
    own = [task for task in map(run.plan.snapshot_of, drawing) if task] or run.of_recipe(snapshots, recipe)
    name = own[0].subject.recipe
    manifest = run.finished(own, name, seed, epoch, "snapshot")
    own_ref = manifest.ref
    mixed = [task for task in run.plan if task.stage == "ema" and task.inputs["snapshot"] == manifest.ref and task.subject.ema == average]
    if mixed:
        manifest = load(run.run.store, mixed[0].ref) or manifest
    drawn = next((task for task in drawing if task.inputs["snapshot"] in (own_ref, manifest.ref) and task.subject.ema == average), None)
    guide, uri = None, run.run.store.uri
    if drawn and "guide" in drawn.inputs:
        guide = f"{uri}/{drawn.inputs['guide'].folder}", drawn.settings["guidance"]["guide"]["ema"]
    sampling = {setting: value for setting, value in settings.items() if setting not in (*NOT_HOW, OWN)} | settings.get(OWN, {})
    address, measured = f"{uri}/{manifest.ref.folder}", _measured(run, manifest, mixed, average)
    count, code = settings.get("count", 0), drawing[0].code if drawing else {}
    return Snapshot(address, average, _title(manifest), name, sampling, manifest, measured, count, guide, code)


def name_of(ema: str | float | None) -> str | None:
    """The name of an average as a user gives it. Raises InputError for what is no relative width."""
    try:
        return None if ema is None else average_name(ema)
    except ValueError as error:
        raise InputError(f"The EMA {error}.", where="ema") from None


def _at(uri: str, ref: Ref, ema: str | float | None) -> Snapshot:
    """The snapshot with this key. Its recipe's way of sampling is not known, since several runs may share it."""
    store = find_store(uri)
    manifest = load(store, ref)
    if manifest is None:
        raise InputError(
            "The store has no finished snapshot of this key.", where=f"{store.uri}/{ref.folder}", do_next="Run its experiment."
        )
    own = name_of(manifest.metadata.get("ema")) or "fixed" if ref.stage == "ema" else "fixed"
    return Snapshot(f"{store.uri}/{ref.folder}", name_of(ema) or own, _title(manifest), manifest.metadata.get("recipe", ""), {}, manifest)


def _title(manifest: Manifest) -> str:
    """The training and the epoch of a snapshot: digits/E · seed 0 · epoch 40."""
    facts = manifest.metadata
    named = "recipe" in facts and "epoch" in facts
    return f"{facts['recipe']} · seed {facts.get('seed')} · epoch {facts['epoch']}" if named else manifest.title


def _measured(run: OpenRun, snapshot: Manifest, mixed: list[Task], ema: str) -> dict[str, float]:
    """What the run measured of the samples of this snapshot's average, of the first draw."""
    values: dict[str, float] = {}
    stands_on = {snapshot.ref, *(task.inputs["snapshot"] for task in mixed)}
    for task in run.plan:
        below = run.plan.snapshot_of(task)
        if task.stage != "metrics" or task.subject.ema != ema or task.subject.draw or below is None or below.ref not in stands_on:
            continue
        if (manifest := load(run.run.store, task.ref)) is not None:
            values |= {name: value for name, value in manifest.measured.items() if value is not None}
    return values
