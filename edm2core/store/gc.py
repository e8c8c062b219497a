"""What no kept run needs any more, and removing it."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from edm2core.errors import IntegrityError
from edm2core.manifest import Manifest, Ref
from edm2core.plan import trajectory_ref
from edm2core.store.base import Entry, Store
from edm2core.store.leases import holder
from edm2core.store.results import discard, load
from edm2core.store.runs import list_runs, load_plan

DAY_S = 86_400.0


class Removal(NamedTuple):
    """Something of the store that can go: a folder, with its closing slash, or one object; its bytes, and why."""

    path: str
    size: int
    why: str


def plan_gc(store: Store, days: float = 7) -> list[Removal]:
    """What can be removed: named by no run in `runs/`, held by nobody, and not written to for `days`.

    Raises IntegrityError if a run's plan cannot be read, since what it needs is then unknown.
    """
    kept, folders = _kept(store), _folders(store)
    held = {ref for prefix in folders if prefix.startswith("leases/") and (ref := _ref(prefix)) and _is_held(store, ref)}
    going: dict[str, Removal] = {}
    for prefix in sorted(folders, reverse=True):  # scratch before leases
        ref = _ref(prefix)
        if ref in held:
            continue
        area = prefix.split("/")[0]
        if area == "results" and ref:
            found = _results(store, ref, folders[prefix], kept)
        elif area == "scratch" and ref:
            found = [(prefix, kept.why_not_scratch(store, ref))]
        elif area == "leases" and ref:  # generations must not start anew beside pieces of old ones
            scratch = f"{ref.scratch}/"
            found = [(prefix, "nobody holds it, and there is no unfinished work" if scratch in going or scratch not in folders else "")]
        elif area == "work":
            found = [(prefix, "left behind by a process that was killed")]
        elif area == "sources":
            name = prefix.split("/")[1].partition(".")[0]
            found = [(prefix, "" if name in kept.digests else "no run names this source")]
        else:
            found = []
        for path, why in found:
            entries = [entry for entry in folders[prefix] if entry.path.startswith(path)]
            if why and min(entry.age_s for entry in entries) > days * DAY_S:
                going[path] = Removal(path, sum(entry.size for entry in entries), why)
    return sorted(going.values())


def apply(store: Store, removals: list[Removal], days: float = 7) -> int:
    """Remove those of the removals that still can go, and what interrupted writes left; returns the bytes freed."""
    still = {removal.path for removal in plan_gc(store, days)}  # a run may have begun since
    freed = 0
    for removal in removals:
        if removal.path in still:
            discard(store, removal.path)
            freed += removal.size
    return freed + store.sweep(days * DAY_S)


@dataclass
class _Kept:
    """What the kept runs name."""

    results: set[Ref] = field(default_factory=set)
    trajectories: set[Ref] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)

    def has(self, store: Store, ref: Ref) -> bool:
        """Whether a result is named, or belongs to what is: a training's averages, and what an extractor was held to."""
        if ref in self.results:
            return True
        manifest = _load(store, ref) if ref.stage in ("average", "calibration") else None
        if manifest is None:
            return False
        if ref.stage == "calibration":
            return Ref.parse(manifest.inputs["extractor"]) in self.results
        return Ref("trajectory", str(manifest.metadata.get("trajectory"))) in self.trajectories

    def why_not_scratch(self, store: Store, ref: Ref) -> str:
        if ref in self.trajectories:
            return ""
        if ref not in self.results:
            return "unfinished work that no run needs"
        return "" if _load(store, ref) is None else "left over from work that is finished"


def _kept(store: Store) -> _Kept:
    kept = _Kept()
    for run in list_runs(store):
        try:
            _, tasks = load_plan(store, run)
        except IntegrityError as error:
            raise IntegrityError(
                f"{error.what} So what it needs is unknown, and nothing is removed.",
                where=error.where,
                do_next="Remove that run (edm2 runs rm), or run its experiment again.",
            ) from None
        kept.trajectories |= {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}
        for task in tasks:
            kept.results |= {task.ref, *task.needs}
            kept.digests.add(str(task.settings.get("digest")).rpartition(":")[2])
    return kept


def _folders(store: Store) -> dict[str, list[Entry]]:
    """What lies at each address: `<area>/<stage>/<key>/`, `work/<stage>-<key>-…/`, `sources/<digest>/` or `sources/<digest>`."""
    folders: dict[str, list[Entry]] = defaultdict(list)
    for area, depth in (("results", 3), ("scratch", 3), ("leases", 3), ("sources", 2), ("work", 2)):
        for entry in store.list(f"{area}/"):
            parts = entry.path.split("/")
            folders["/".join(parts[:depth]) + ("/" if len(parts) > depth else "")].append(entry)
    return folders


def _ref(prefix: str) -> Ref | None:
    """Whose it is, a working folder being its process's; None of a source."""
    parts = prefix.split("/")
    if parts[0] == "work":
        return Ref(*parts[1].split("-")[:2]) if parts[1].count("-") >= 2 else None
    return Ref(parts[1], parts[2]) if len(parts) == 4 else None


def _results(store: Store, ref: Ref, entries: list[Entry], kept: _Kept) -> list[tuple[str, str]]:
    """What of a result can go: all of it, or the attempts that did not become it."""
    if not kept.has(store, ref):
        return [(f"{ref.folder}/", "no run needs this result")]
    manifest = _load(store, ref)
    attempts = {entry.path.split("/")[3] for entry in entries if entry.path.count("/") > 3}
    losers = attempts - ({manifest.attempt} if manifest else set())
    return [(f"{ref.folder}/{attempt}/", "an attempt that did not become the result") for attempt in sorted(losers)]


def _is_held(store: Store, ref: Ref) -> bool:
    last = holder(store, ref)
    return last is not None and last.alive


def _load(store: Store, ref: Ref) -> Manifest | None:
    with suppress(IntegrityError):
        return load(store, ref)
    return None
