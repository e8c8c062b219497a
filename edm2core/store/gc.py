"""What no kept run needs any more, and removing it.

What is needed follows from the runs' plans, and what may still be committed from the leases; the store is listed once. Removing is safe
beside work, by two orders. Leases are read before and after the listing, so that whatever was not yet committed when it was listed belongs
to one that is seen. And the lease on `gc/store` is held from before the plans are read, while a run waits for it after its plan is written:
so either the plan is seen, or the run looks for results only when all is removed.

Only manifests name the records of how code differed. Those are looked for in manifests, and go last, while nobody works.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import Manifest, Ref, diff_path
from edm2core.plan.tasks import Task, unverified
from edm2core.store.averages import averages_of, trainings
from edm2core.store.base import Entry, Store
from edm2core.store.leases import GC, Holder, acquire, holder, standing
from edm2core.store.plans import MEND_PLAN, read_plan
from edm2core.store.results import load
from edm2core.store.runs import list_runs
from edm2core.store.summary import each

DAY_S = 86_400.0
NAMED = 5  # runs in one message
AT_ONCE = 64  # manifests that are read before it is looked whether more are needed
OF_TRAININGS = ("snapshot", "average")  # committed under the lease on their trajectory


class Removal(NamedTuple):
    """Something of the store that can go: a folder, with its closing slash, or one object; its bytes, why, and the objects that it has."""

    path: str
    size: int
    why: str
    objects: tuple[str, ...]


def plan_gc(store: Store, days: float = 7) -> list[Removal]:
    """What can be removed: named by no run in `runs/`, not to be committed by anybody who holds a lease, and not written to for `days`.

    Raises IntegrityError if a run's plan is damaged, since what it needs is then unknown.
    """
    return _look(store, days)[0]


def apply(store: Store, days: float = 7) -> tuple[list[Removal], int]:
    """Remove what can go, and what interrupted writes left; what went, and the bytes freed.

    Raises IntegrityError as `plan_gc` does, and Busy while another process does the same.
    """
    with acquire(store, GC):
        removals, works = _look(store, days)
        gone: list[Removal] = []
        for area in ("", "code", "leases"):  # leases last, so that a generation never starts anew beside what was made in an old one
            those = [removal for removal in removals if _turn(removal.path) == area]
            gone += [removal for removal, removed in zip(those, each(store, lambda r: _remove(store, r), those), strict=True) if removed]
        return sorted(gone), sum(removal.size for removal in gone) + store.sweep(days * DAY_S, works.could_commit)


def _look(store: Store, days: float) -> tuple[list[Removal], _Works]:
    before = standing(store)
    held = {ref for ref, last in before.items() if last.could_commit}  # now, as whoever commits may be gone a moment later
    kept, folders = _Kept.of(store), _folders(store)
    works = _Works.of(held, before, standing(store))
    going: dict[str, Removal] = {}
    unfinished: set[Ref] = set()  # of which a working folder stays
    for prefix in sorted(folders, reverse=True):  # work and scratch before leases
        for path, why in _unneeded(store, prefix, folders, kept, works, going, unfinished):
            entries = [entry for entry in folders[prefix] if entry.path.startswith(path)]
            if min(entry.age_s for entry in entries) > days * DAY_S:
                size = sum(entry.size for entry in entries)
                going[path] = Removal(path, size, why, tuple(entry.path for entry in entries))
        if prefix.startswith("work/") and prefix not in going and (ref := _ref(prefix)):
            unfinished.add(ref)
    if not works.busy:  # whoever works may commit a result that names any of them
        old = [entry for entry in _entries(folders, "code/") if entry.age_s > days * DAY_S]
        staying = _staying_manifests(folders, going)
        going |= {diff.path: Removal(diff.path, diff.size, "no result names it", (diff.path,)) for diff in _unnamed(store, old, staying)}
    return sorted(going.values()), works


def _unneeded(
    store: Store,
    prefix: str,
    folders: dict[str, list[Entry]],
    kept: _Kept,
    works: _Works,
    going: dict[str, Removal],
    unfinished: set[Ref],
) -> list[tuple[str, str]]:
    """What below an address is neither needed nor being worked on: paths, and why each can go."""
    area, ref = prefix.split("/")[0], _ref(prefix)
    if ref is None or works.holds(ref):
        return []
    if area == "results":
        return _of_result(store, ref, folders[prefix], kept, works)
    why = ""
    if area == "scratch":
        why = kept.why_not_scratch(store, ref, folders)
    elif area == "leases":  # generations must not start anew beside what was made in old ones
        made = f"{ref.scratch}/" in folders and f"{ref.scratch}/" not in going
        why = "" if made or ref in unfinished else "nobody holds it, and there is no unfinished work"
    elif area == "work":
        why = "left behind by a process that was killed"
    elif area == "sources" and ref.key not in kept.digests:
        why = "no run names this source"
    return [(prefix, why)] if why else []


def _of_result(store: Store, ref: Ref, entries: list[Entry], kept: _Kept, works: _Works) -> list[tuple[str, str]]:
    """What of a result can go: all of it, or the attempts that did not become it."""
    committed = any(entry.path == ref.manifest for entry in entries)
    attempts = {entry.path.split("/")[3] for entry in entries if entry.path.count("/") > 3}
    if not committed and works.train and ref.stage in OF_TRAININGS:
        return []  # any training may be about to commit it
    if not kept.names(ref):
        manifest = None
        if committed and ref.stage in ("calibration", *(OF_TRAININGS if works.train else ("average",))):
            try:
                manifest = load(store, ref)
            except IntegrityError:
                return []  # whose it is cannot be known
        if manifest and (kept.owns(manifest) or works.holds(_trajectory(manifest))):
            return []
        return [(f"{ref.folder}/", "no run needs this result")]
    if committed and len(attempts) > 1:
        try:
            manifest = load(store, ref)
        except IntegrityError:
            return []  # `edm2 verify` names it
        attempts -= {manifest.attempt} if manifest else attempts
    elif committed:
        attempts = set()
    return [(f"{ref.folder}/{attempt}/", "an attempt that did not become the result") for attempt in sorted(attempts)]


def _unnamed(store: Store, diffs: list[Entry], manifests: list[Entry]) -> list[Entry]:
    """Which records of how code differed no manifest names. A damaged manifest may name any of them."""
    left = {diff.path: diff for diff in diffs}
    nearest = sorted(manifests, key=lambda manifest: min(abs(manifest.age_s - diff.age_s) for diff in diffs)) if diffs else []
    for first in range(0, len(nearest), AT_ONCE):  # a record's first manifest is committed just after it
        if not left:
            break
        refs = [Ref(*entry.path.split("/")[1:3]) for entry in nearest[first : first + AT_ONCE]]
        try:
            read = each(store, lambda ref: load(store, ref), refs)
        except IntegrityError:
            return []
        for manifest in filter(None, read):
            left.pop(diff_path(str(manifest.provenance.get("diff"))), None)
    return list(left.values())


def _staying_manifests(folders: dict[str, list[Entry]], going: dict[str, Removal]) -> list[Entry]:
    gone = {path for removal in going.values() for path in removal.objects}
    entries = _entries(folders, "results/")
    return [entry for entry in entries if entry.path.endswith("/manifest.json") and entry.path.count("/") == 3 and entry.path not in gone]


def _entries(folders: dict[str, list[Entry]], area: str) -> list[Entry]:
    return [entry for prefix, entries in folders.items() if prefix.startswith(area) for entry in entries]


def _turn(path: str) -> str:
    """When something is removed: results and work first, then records of how code differed, then leases."""
    area = path.split("/")[0]
    return area if area in ("code", "leases") else ""


def _remove(store: Store, removal: Removal) -> bool:
    """Delete what was seen, a manifest first, so that no reader trusts the rest; not what has been taken up since."""
    if _turn(removal.path) == "code" and any(last.could_commit for ref, last in standing(store).items() if ref != GC):
        return False
    ref = _ref(removal.path)
    if ref and not removal.path.startswith("leases/") and (last := holder(store, ref)) and last.could_commit:
        return False
    for path in sorted(removal.objects, key=lambda path: not path.endswith("/manifest.json")):
        store.delete(path)
    return True


@dataclass
class _Works:
    """Who may still commit something."""

    refs: set[Ref] = field(default_factory=set)

    @classmethod
    def of(cls, held: set[Ref], before: dict[Ref, Holder], after: dict[Ref, Holder]) -> _Works:
        """Whoever held a lease at the first of two times, or has taken or given one back until the second."""
        return cls(held | {ref for ref, found in after.items() if _state(before.get(ref)) != _state(found)} | {GC})

    @property
    def train(self) -> bool:
        return any(ref.stage == "trajectory" for ref in self.refs)

    @property
    def busy(self) -> bool:
        """Whether anybody works at all, other than removing."""
        return bool(self.refs - {GC})

    def holds(self, ref: Ref) -> bool:
        return ref in self.refs

    def could_commit(self, path: str) -> bool:
        """Whether an object at this path, or of a path that is not known (""), may be being written by one of them."""
        if not path:
            return self.busy
        parts = path.split("/")
        ref = _ref("/".join(parts[:3]) + "/") if parts[0] != "sources" else _ref(path)
        return ref is not None and (self.holds(ref) or (self.train and parts[0] == "results" and ref.stage in OF_TRAININGS))


def _state(last: Holder | None) -> tuple[int, bool] | None:
    return (last.generation, last.released) if last else None


@dataclass
class _Kept:
    """What the kept runs name."""

    results: set[Ref] = field(default_factory=set)
    trajectories: set[Ref] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, store: Store) -> _Kept:
        runs = list_runs(store)
        plans = each(store, lambda run: _plan(store, run), runs)
        lost = {run: plan for run, plan in zip(runs, plans, strict=True) if isinstance(plan, IntegrityError)}
        if lost:
            _refuse(store, lost)
        tasks = [task for plan in plans if not isinstance(plan, IntegrityError) for task in plan]
        found = trainings(tasks)
        results = {ref for task in tasks for ref in (task.ref, *task.needs)}
        averages = {average for ref, task in found.items() for average in averages_of(task, ref)}
        digests = {str(task.settings.get("digest")).rpartition(":")[2] for task in tasks}
        return cls(results | averages, set(found), digests)

    def names(self, ref: Ref) -> bool:
        return ref in self.results

    def owns(self, manifest: Manifest) -> bool:
        """Whether a result belongs to what is named: a training's averages, and what an extractor was held to."""
        if manifest.stage == "calibration":
            return Ref.parse(manifest.inputs["extractor"]) in self.results
        return manifest.stage == "average" and _trajectory(manifest) in self.trajectories

    def why_not_scratch(self, store: Store, ref: Ref, folders: dict[str, list[Entry]]) -> str:
        if ref in self.trajectories:
            return ""
        if ref not in self.results:
            return "unfinished work that no run needs"
        if not any(entry.path == ref.manifest for entry in folders.get(f"{ref.folder}/", ())):
            return ""
        with suppress(IntegrityError):  # a damaged result may have to be made again from it
            return "left over from work that is finished" if load(store, ref) else ""
        return ""


def _plan(store: Store, run: str) -> list[Task] | IntegrityError:
    """A run's tasks, or why what it needs is not known; a plan without a digest, of an earlier version, verifies by its tasks' keys."""
    try:
        found = read_plan(store, run)
        tasks = list(found.plan)
        if found.sealed or not (changed := unverified(tasks)):
            return tasks
        return IntegrityError(f"The plan of {run} has been changed since it was written: {changed[0].ref} is not that task's key.")
    except MissingError:
        return IntegrityError(f"The plan of {run} is missing.", where=f"runs/{run}/plan.json")
    except IntegrityError as error:
        return error


def _refuse(store: Store, lost: dict[str, IntegrityError]) -> None:
    """Raise IntegrityError naming the runs whose needs are unknown."""
    named = list(lost.values())[:NAMED]
    others = f" {len(lost) - NAMED} more runs' plans cannot be read." if len(lost) > NAMED else ""
    raise IntegrityError(
        f"{' '.join(error.what for error in named)}{others} What is needed is unknown, so nothing is removed.",
        where=", ".join(f"{store.uri}/runs/{run}/plan.json" for run in list(lost)[:NAMED]),
        do_next=MEND_PLAN,
    )


def _trajectory(manifest: Manifest) -> Ref:
    return Ref("trajectory", str(manifest.metadata.get("trajectory")))


def _folders(store: Store) -> dict[str, list[Entry]]:
    """What lies at each: `<area>/<stage>/<key>/`, `work/<stage>-<key>-…/`, `sources/<digest>` or below it, and `code/<digest>.diff`."""
    folders: dict[str, list[Entry]] = defaultdict(list)
    for area, depth in (("results", 3), ("scratch", 3), ("leases", 3), ("sources", 2), ("work", 2), ("code", 2)):
        for entry in store.list(f"{area}/"):
            parts = entry.path.split("/")
            folders["/".join(parts[:depth]) + ("/" if len(parts) > depth else "")].append(entry)
    return folders


def _ref(prefix: str) -> Ref | None:
    """Whose it is: a working folder its process's, a source its own; None of what is not ours to know."""
    parts = prefix.split("/")
    if parts[0] == "work":
        return Ref(*parts[1].split("-")[:2]) if parts[1].count("-") >= 2 else None
    if parts[0] == "sources":
        return Ref("source", parts[1].partition(".")[0])
    return Ref(parts[1], parts[2]) if len(parts) >= 4 else None
