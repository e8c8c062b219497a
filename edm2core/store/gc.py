"""Finds what no kept run needs any more, and removes it. Others may work meanwhile: docs/architecture.md says under "Removing" why."""

import re
from collections import defaultdict
from contextlib import suppress
from typing import NamedTuple

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import Manifest, Ref, diff_path
from edm2core.plan.tasks import Task
from edm2core.store.averages import averages_of, trainings
from edm2core.store.base import Entry, Store, each
from edm2core.store.leases import GC, SILENT_S, acquire, holder, holders
from edm2core.store.plans import MEND_PLAN, plan_path, read_plan
from edm2core.store.results import load
from edm2core.store.runs import list_runs

DAY_S = 86_400.0
NAMED = 5  # the most runs that one message names
AT_ONCE = 64  # the most manifests to read before a check whether more are needed
OF_TRAININGS = ("snapshot", "average")  # stages whose results are committed under the lease on their trajectory


class Removal(NamedTuple):
    """Something that can be removed: a folder, whose path ends with a slash, or one object. `objects` are the paths to delete."""

    path: str
    size: int
    why: str
    objects: tuple[str, ...]


def plan_gc(store: Store, days: float = 7) -> list[Removal]:
    """What can be removed: no run in `runs/` needs it, no holder of a lease may commit it, and nobody has written to it for `days`.

    Raises IntegrityError if a run's plan is damaged, since what that run needs is then unknown.
    """
    return _Survey(store, days).removals()


def apply(store: Store, days: float = 7) -> tuple[list[Removal], int]:
    """Remove what can be removed, and what interrupted writes left behind. Returns what was removed, and the bytes freed.

    Raises IntegrityError as `plan_gc` does, and Busy while another process does the same.
    """
    with acquire(store, GC):
        survey = _Survey(store, days)
        removals = survey.removals()
        removed: list[Removal] = []
        for turn in ("", "code", "leases"):  # leases last, so that generations do not begin at 1 again beside what older ones made
            now = [removal for removal in removals if _turn(removal.path) == turn]
            removed += [removal for removal, done in zip(now, each(store, lambda r: _remove(store, r), now), strict=True) if done]
        swept = store.sweep(days * DAY_S, survey.could_commit)
        return sorted(removed), sum(removal.size for removal in removed) + swept


class _Survey:
    """One look at a store: what lies where, what the kept runs need, and what may still be committed."""

    def __init__(self, store: Store, days: float) -> None:
        self._store, self._min_age_s = store, days * DAY_S
        before = holders(store, SILENT_S)
        held = {ref for ref, last in before.items() if last.could_commit}  # looked at now, since a worker may commit and end at any moment
        states = {(ref, last.generation, last.released) for ref, last in before.items()}
        self._needed, self._folders = _needed(store), _folders(store)
        after = holders(store, SILENT_S)
        changed = {ref for ref, last in after.items() if (ref, last.generation, last.released) not in states}
        self._working = held | changed | {GC}  # leases that were held at the first look, or were taken or released between the two
        self._training = any(ref.stage == "trajectory" for ref in self._working)

    def removals(self) -> list[Removal]:
        going: dict[str, Removal] = {}
        unfinished: set[Ref] = set()  # results whose working folders stay
        for prefix in sorted(self._folders, reverse=True):  # work and scratch come before leases
            for path, why in self._unneeded(prefix, going, unfinished):
                entries = [entry for entry in self._folders[prefix] if entry.path.startswith(path)]
                if min(entry.age_s for entry in entries) > self._min_age_s:
                    going[path] = Removal(path, sum(entry.size for entry in entries), why, tuple(entry.path for entry in entries))
            if prefix.startswith("work/") and prefix not in going and (ref := _ref(prefix)):
                unfinished.add(ref)
        if self._working == {GC}:  # else somebody may commit a result that names one of these records
            for diff in self._unnamed_diffs(going):
                going[diff.path] = Removal(diff.path, diff.size, "no result names it", (diff.path,))
        return sorted(going.values())

    def could_commit(self, path: str) -> bool:
        """Whether somebody may be writing an object at this path, or at a path that is not known ("")."""
        if not path:
            return self._working != {GC}
        area, *_ = parts = path.split("/")
        ref = _ref("/".join(parts[:3]) + "/") if area != "sources" else _ref(path)
        return ref is not None and (ref in self._working or (self._training and area == "results" and ref.stage in OF_TRAININGS))

    def _unneeded(self, prefix: str, going: dict[str, Removal], unfinished: set[Ref]) -> list[tuple[str, str]]:
        """The paths at and below a folder that are neither needed nor worked on, each with the reason why it can go."""
        area, ref = prefix.split("/")[0], _ref(prefix)
        if ref is None or ref in self._working:
            return []
        if area == "results":
            return self._unneeded_of_result(ref, self._folders[prefix])
        why = ""
        if area == "scratch":
            why = self._why_scratch_can_go(ref)
        elif area == "leases":  # else generations would begin at 1 again beside what older ones made
            made = f"{ref.scratch}/" in self._folders and f"{ref.scratch}/" not in going
            why = "" if made or ref in unfinished else "nobody holds it, and there is no unfinished work"
        elif area == "work":
            why = "left behind by a process that was killed"
        elif area == "sources" and ref.key not in self._needed.digests:
            why = "no run names this source"
        return [(prefix, why)] if why else []

    def _unneeded_of_result(self, ref: Ref, entries: list[Entry]) -> list[tuple[str, str]]:
        """The parts of a result that can go: all of it, or the attempts that did not become it."""
        committed = any(entry.path == ref.manifest for entry in entries)
        attempts = {entry.path.split("/")[3] for entry in entries if entry.path.count("/") > 3}
        needed, of_training = ref in self._needed.results, self._training and ref.stage in OF_TRAININGS
        if not committed and of_training:
            return []  # any training may be about to commit it
        manifest = None
        if committed and (len(attempts) > 1 if needed else of_training or ref.stage in ("average", "calibration")):
            try:
                manifest = load(self._store, ref)
            except IntegrityError:
                return []  # nothing says what the result belongs to, or which attempt became it; `edm2 verify` reports it
        if not needed:
            belongs = manifest and (self._needed.owns(manifest) or _trajectory(manifest) in self._working)
            return [] if belongs else [(f"{ref.folder}/", "no run needs this result")]
        if committed:
            attempts = attempts - {manifest.attempt} if manifest else set()
        return [(f"{ref.folder}/{attempt}/", "an attempt that did not become the result") for attempt in sorted(attempts)]

    def _why_scratch_can_go(self, ref: Ref) -> str:
        if ref in self._needed.trajectories:
            return ""
        if ref not in self._needed.results:
            return "unfinished work that no run needs"
        if any(entry.path == ref.manifest for entry in self._folders.get(f"{ref.folder}/", ())):
            with suppress(IntegrityError):  # a damaged result may have to be made again from this work
                return "left over from work that is finished" if load(self._store, ref) else ""
        return ""

    def _unnamed_diffs(self, going: dict[str, Removal]) -> list[Entry]:
        """The old records of how code differed that no remaining manifest names. None if a manifest is damaged: it may name any."""
        entries = [entry for entries in self._folders.values() for entry in entries]
        left = {entry.path: entry for entry in entries if entry.path.startswith("code/") and entry.age_s > self._min_age_s}
        ages = [diff.age_s for diff in left.values()]
        gone = {path for removal in going.values() for path in removal.objects}
        manifests = {entry.path: entry.age_s for entry in entries if re.fullmatch("results/[^/]+/[^/]+/manifest.json", entry.path)}
        # A record's first manifest is committed just after it, so those of the same age are read first.
        staying = sorted(manifests.keys() - gone, key=lambda path: min((abs(manifests[path] - age) for age in ages), default=0.0))
        while left and staying:
            refs = [Ref(*path.split("/")[1:3]) for path in staying[:AT_ONCE]]
            del staying[:AT_ONCE]
            try:
                read = each(self._store, lambda ref: load(self._store, ref), refs)
            except IntegrityError:
                return []
            for manifest in filter(None, read):
                left.pop(diff_path(str(manifest.provenance.get("diff"))), None)
        return list(left.values())


def _turn(path: str) -> str:
    """The turn in which something is removed: results and work first, then records of how code differed, then leases."""
    area = path.split("/")[0]
    return area if area in ("code", "leases") else ""


def _remove(store: Store, removal: Removal) -> bool:
    """Delete the objects that were listed, unless somebody has started to work on it since.

    The manifest goes first, so that no reader trusts the rest.
    """
    if _turn(removal.path) == "code" and any(last.could_commit for ref, last in holders(store, SILENT_S).items() if ref != GC):
        return False
    ref = _ref(removal.path)
    if ref and not removal.path.startswith("leases/") and (last := holder(store, ref)) and last.could_commit:
        return False
    for path in sorted(removal.objects, key=lambda path: not path.endswith("/manifest.json")):
        store.delete(path)
    return True


class _Needed(NamedTuple):
    """The results, trajectories and sources that the kept runs need."""

    results: set[Ref]
    trajectories: set[Ref]
    digests: set[str]  # of sources, in hex

    def owns(self, manifest: Manifest) -> bool:
        """Whether a result belongs to something that is needed: an average to a training, a calibration to an extractor."""
        if manifest.stage == "calibration":
            return Ref.parse(manifest.inputs["extractor"]) in self.results
        return manifest.stage == "average" and _trajectory(manifest) in self.trajectories


def _needed(store: Store) -> _Needed:
    plans = each(store, lambda run: _plan(store, run), list_runs(store))
    if lost := [plan for plan in plans if isinstance(plan, IntegrityError)]:
        named = " ".join(error.what for error in lost[:NAMED])
        others = f" {len(lost) - NAMED} more runs' plans cannot be read." if len(lost) > NAMED else ""
        what, where = f"{named}{others} What is needed is unknown, so nothing is removed.", ", ".join(error.where for error in lost[:NAMED])
        raise IntegrityError(what, where=where, do_next=MEND_PLAN)
    tasks = [task for plan in plans if not isinstance(plan, IntegrityError) for task in plan]
    trained = trainings(tasks)
    results = {ref for task in tasks for ref in (task.ref, *task.needs)}
    averages = {average for ref, task in trained.items() for average in averages_of(task, ref)}
    digests = {str(task.settings.get("digest")).rpartition(":")[2] for task in tasks}
    digests |= {content.rpartition(":")[2] for task in tasks for content in task.code.values()}
    return _Needed(results | averages, set(trained), digests)


def _plan(store: Store, run: str) -> list[Task] | IntegrityError:
    """A run's tasks, or the error that says why they are not known."""
    try:
        return list(read_plan(store, run).plan)
    except MissingError:
        return IntegrityError(f"The plan of {run} is missing.", where=f"{store.uri}/{plan_path(run)}")
    except IntegrityError as error:
        return error


def _trajectory(manifest: Manifest) -> Ref:
    return Ref("trajectory", str(manifest.metadata.get("trajectory")))


def _folders(store: Store) -> dict[str, list[Entry]]:
    """The objects in each folder: `<area>/<stage>/<key>/`, `work/<stage>-<key>-…/`, `sources/<digest>` and `code/<digest>.diff`."""
    folders: dict[str, list[Entry]] = defaultdict(list)
    for area, depth in (("results", 3), ("scratch", 3), ("leases", 3), ("sources", 2), ("work", 2), ("code", 2)):
        for entry in store.list(f"{area}/"):
            parts = entry.path.split("/")
            folders["/".join(parts[:depth]) + ("/" if len(parts) > depth else "")].append(entry)
    return folders


def _ref(prefix: str) -> Ref | None:
    """The name of the lease that is held while somebody works at this path; None for a path that edm2 does not write."""
    parts = prefix.split("/")
    if parts[0] == "work":
        return Ref(*parts[1].split("-")[:2]) if parts[1].count("-") >= 2 else None
    if parts[0] == "sources":
        return Ref("source", parts[1].partition(".")[0])
    return Ref(parts[1], parts[2]) if len(parts) >= 4 else None
