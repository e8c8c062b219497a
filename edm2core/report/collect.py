"""From the store to plain data: every task's manifest, and the few files that a report shows."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edm2core.errors import EdmError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store.base import Store
from edm2core.store.results import load

CURVE, GRID, INTERPOLATIONS, NEIGHBOURS = "curve.jsonl", "grid.png", "interpolations.png", "neighbours.png"
CLASSES = "classes.png"
PROBE = "probe.json"
PNG = b"\x89PNG\r\n\x1a\n"


class Outcome(NamedTuple):
    """How a task of the run that just ended fared: a state (done, reused, failed, skipped, interrupted), why, and where its output is."""

    state: str
    reason: str = ""
    log: str = ""


@dataclass(frozen=True)
class RunInfo:
    """What only the run itself knows; all of it may be empty when a report is made later."""

    outcomes: Mapping[Ref, Outcome] = field(default_factory=dict)
    experiment: str = ""  # the experiment file as written
    command: str = ""  # what was typed
    started: str = ""  # when it was last started, ISO 8601
    finished: str = ""  # when it ended
    running: bool = False  # so that more is to come, and the page refreshes by itself
    absent: Mapping[str, str] = field(default_factory=dict)  # optional metrics that were left out, by their name in results, and why
    notes: str = ""  # the user's, in Markdown


@dataclass(frozen=True)
class Result:
    """A task and what became of it; `manifest` is None where the store has no usable result."""

    task: Task
    manifest: Manifest | None
    outcome: Outcome

    @property
    def metadata(self) -> dict[str, Any]:
        return self.manifest.metadata if self.manifest else {}

    @property
    def provenance(self) -> dict[str, Any]:
        return self.manifest.provenance if self.manifest else {}


@dataclass(frozen=True)
class Report:
    """All that a report is made from."""

    name: str
    store: str  # URI
    plan: Plan
    results: Mapping[Ref, Result]  # in the plan's order
    curves: Mapping[Ref, list[dict[str, Any]]]  # of each trajectory's latest finished snapshot
    grids: Mapping[Ref, bytes]  # PNG of each finished sample task's, first draws alone
    interpolations: Mapping[Ref, bytes]  # PNG likewise
    neighbours: Mapping[Ref, bytes]  # PNG of each training's latest metrics with memorisation
    unreadable: tuple[str, ...]  # files that should be there and are not as recorded
    run: RunInfo
    calibrations: tuple[Manifest, ...] = ()  # the store's, of the plan's extractors
    confusions: Mapping[Ref, dict[str, Any]] = field(default_factory=dict)  # of finished probes: see confusion_of
    by_class: Mapping[Ref, bytes] = field(default_factory=dict)  # PNG of class-conditional samples, a row a class, likewise

    def of_stage(self, stage: str) -> list[Result]:
        return [result for result in self.results.values() if result.task.stage == stage]

    def input(self, result: Result, name: str) -> Result | None:
        """The result that a task reads under this name, if the plan has it."""
        ref = result.task.inputs.get(name)
        return self.results.get(ref) if ref else None

    def snapshot(self, result: Result) -> Result | None:
        """The snapshot that a result of samples, metrics, a probe or a mixed average stands on."""
        snapshot = self.plan.snapshot_of(result.task)
        return self.results[snapshot.ref] if snapshot else None

    @property
    def undone(self) -> list[Result]:
        return [result for result in self.results.values() if result.manifest is None]


def collect(name: str, tasks: Iterable[Task], store: Store, run: RunInfo, *, pictures: bool = True) -> Report:
    """Read what a plan has produced so far, with or without its pictures; what is missing or damaged is recorded, never raised."""
    plan = Plan.of(tasks)
    results = {task.ref: _result(task, store, run.outcomes.get(task.ref)) for task in plan}
    unreadable: list[str] = []

    def read(result: Result, file: str, folder: Path) -> bytes | None:
        manifest = result.manifest
        if manifest is None or file not in manifest.files:
            return None
        try:
            return store.fetch(manifest.path(file), folder, manifest.files[file]).read_bytes()
        except (EdmError, OSError) as error:
            unreadable.append(f"{manifest.title}, {file}: {error}")
            return None

    curves: dict[Ref, list[dict[str, Any]]] = {}
    shown: dict[str, dict[Ref, bytes]] = {GRID: {}, INTERPOLATIONS: {}, CLASSES: {}, NEIGHBOURS: {}}
    with tempfile.TemporaryDirectory(prefix="edm2-report-") as temporary:
        for number, result in enumerate(_latest_snapshots(results.values())):
            data = read(result, CURVE, Path(temporary) / f"curve-{number}")
            if data is not None:
                curves[result.task.ref] = lines_of(data)
        firsts = [r for r in results.values() if r.task.stage == "sample" and not r.task.subject.draw]
        wanted = {GRID: firsts, INTERPOLATIONS: firsts, CLASSES: firsts, NEIGHBOURS: _latest_with_neighbours(results.values())}
        for file, those in wanted.items() if pictures else ():
            for number, result in enumerate(those):
                data = read(result, file, Path(temporary) / f"{number}-{file}")
                if data is not None and data.startswith(PNG):
                    shown[file][result.task.ref] = data
        probes = [result for result in results.values() if result.task.stage == "probe"] if pictures else []
        confusions: dict[Ref, dict[str, Any]] = {}
        for number, result in enumerate(probes):
            lines = lines_of((read(result, PROBE, Path(temporary) / f"{number}-{PROBE}") or b"").replace(b"\n", b""))
            if lines and {"classes", "confusion"} <= lines[0].keys():
                confusions[result.task.ref] = confusion_of(lines[0])
    found = shown[GRID], shown[INTERPOLATIONS], shown[NEIGHBOURS]
    known = _calibrations(store, results), confusions, shown[CLASSES]
    return Report(name, store.uri, plan, results, curves, *found, tuple(unreadable), run, *known)


def confusion_of(probe: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's `classes`, and its `confusion` summed over `seeds` of the `asked` ones: the first alone where no sum is recorded."""
    asked = len(probe.get("settings", {}).get("seeds", (0,)))
    summed = probe.get("confusion_over_seeds")
    matrix, seeds = (summed, asked) if summed else (probe["confusion"], 1)
    return {"classes": probe["classes"], "confusion": matrix, "seeds": seeds, "asked": asked}


def _calibrations(store: Store, results: Mapping[Ref, Result]) -> tuple[Manifest, ...]:
    """What `edm2 calibrate` has found in this store for extractors that the plan uses."""
    extractors = {str(ref) for ref, result in results.items() if ref.stage == "extractor" and result.manifest}
    if not extractors:
        return ()
    refs = {Ref.parse("/".join(entry.path.split("/")[1:3])) for entry in store.list("results/calibration/")}
    found = []
    for ref in sorted(refs):
        with suppress(EdmError):  # damaged: `edm2 verify` names it
            manifest = load(store, ref)
            if manifest and manifest.inputs["extractor"] in extractors:
                found.append(manifest)
    return tuple(sorted(found, key=lambda manifest: manifest.title))


def _result(task: Task, store: Store, outcome: Outcome | None) -> Result:
    try:
        manifest = load(store, task.ref)
    except EdmError as error:
        return Result(task, None, Outcome("damaged", str(error), outcome.log if outcome else ""))
    if manifest is not None:
        return Result(task, manifest, Outcome("done", log=outcome.log if outcome else ""))
    if outcome is None or outcome.state in ("done", "reused"):
        return Result(task, None, Outcome("missing", "Not in the store: not run yet, or its result was removed."))
    return Result(task, None, Outcome(*outcome))


def _latest_snapshots(results: Iterable[Result]) -> list[Result]:
    latest: dict[Any, Result] = {}
    for result in results:
        if result.task.stage == "snapshot" and result.manifest is not None:
            subject = result.task.subject
            if subject.training not in latest or latest[subject.training].task.subject.epoch < subject.epoch:
                latest[subject.training] = result
    return list(latest.values())


def _latest_with_neighbours(results: Iterable[Result]) -> list[Result]:
    """Of each training and average, the first draw's metrics at the last epoch that have pictures of nearest training images."""
    latest: dict[Any, Result] = {}
    for result in results:
        subject = result.task.subject
        if result.manifest is None or NEIGHBOURS not in result.manifest.files or subject.draw:
            continue
        who = (*subject.training, subject.ema, result.metadata.get("extractor"))
        if who not in latest or latest[who].task.subject.epoch < subject.epoch:
            latest[who] = result
    return list(latest.values())


def lines_of(data: bytes) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a damaged line is left out."""
    lines = []
    for text in data.decode(errors="replace").splitlines():
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines
