"""Finds and mends damage to everything but results: leases, unfinished work, wishes for snapshots, and the records and logs of runs."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import Ref, diff_path
from edm2core.store.appended import appended_path, changed_appended, record_appended
from edm2core.store.base import Store
from edm2core.store.leases import PATIENCE_S, holders, mend
from edm2core.store.plans import read_plan
from edm2core.store.runs import Run
from edm2core.store.scratch import Scratch
from edm2core.store.sealed import unseal_lines
from edm2core.store.summary import FRESH_S, Summary, summarise, summary_path, write
from edm2core.store.wanted_epochs import read_wish, wishes

NEWEST = 10**6  # a generation later than all others, so that the pieces of all others may be removed


class Damage(NamedTuple):
    """A file that is not as it was written. `mend` repairs what can be repaired, and returns in words what it did."""

    path: str
    what: str
    mend: Callable[[], str]


def of_leases(store: Store, younger_than_s: float = float("inf")) -> Iterator[Damage]:
    """Leases whose newest record or heartbeat cannot be read. Leases whose records are all older than `younger_than_s` are not read."""
    for ref, last in holders(store, younger_than_s).items():
        if last.damaged:
            yield Damage(*last.damaged, partial(_give_back, store, ref, last.beat_age_s))


def of_scratch(store: Store, refs: Iterable[Ref]) -> Iterator[Damage]:
    """Damaged pieces of the unfinished work on these results, and wishes for snapshots that cannot be read."""
    for ref in refs:
        scratch = Scratch(store, ref.scratch, NEWEST)
        with tempfile.TemporaryDirectory() as folder:
            for flaw in scratch.damaged(Path(folder)):
                yield Damage(*flaw, partial(_do, "Removed.", scratch.drop, flaw.path))
        for path in wishes(store, ref):
            try:
                with suppress(MissingError):
                    read_wish(store, path)
            except IntegrityError as error:
                yield Damage(path, error.what, partial(_do, "Removed; its run wishes again when it is started.", store.delete, path))


def of_code(store: Store) -> Iterator[Damage]:
    """Damaged records of how code differed from its revision: their bytes do not have the digest that is their name."""
    for entry in store.list("code/"):
        if entry.path != diff_path(hashlib.sha256(store.read(entry.path)).hexdigest()):
            yield Damage(entry.path, "It has been changed since it was written.", partial(_do, "Removed.", store.delete, entry.path))


def of_run(store: Store, run: str) -> Iterator[Damage]:
    """A run's summary and the lines of its events. Its other files are not read."""
    try:
        with suppress(MissingError):  # a run of an earlier version
            Summary.load(store, run)
    except IntegrityError as error:
        yield Damage(summary_path(run), error.what, partial(_summarise, store, run))
    for flaw in Run(run, store).events()[1]:
        yield Damage(*flaw, partial(_without_damaged_lines, store, run, flaw.path))


def of_appended(store: Store, run: str) -> Iterator[Damage]:
    """A run's events, its logs, and the event files of its trainings, where they are not as they were when the run ended."""
    try:
        for flaw in changed_appended(store, run):
            yield Damage(*flaw, partial(_do, "What is there stays; its digest is recorded anew.", record_appended, store, run, flaw.path))
    except IntegrityError as error:
        yield Damage(appended_path(run), error.what, partial(_do, "Made anew from what there is.", record_appended, store, run))


def _give_back(store: Store, ref: Ref, beat_age_s: float) -> str:
    if beat_age_s < PATIENCE_S:
        return "Somebody may hold it: look again in a minute."
    mend(store, ref)
    return "Given back."


def _do(words: str, mend: Callable[..., None], *arguments: Any) -> str:
    """Call `mend`, and return these words for what it did."""
    mend(*arguments)
    return words


def _summarise(store: Store, run: str) -> str:
    try:
        recorded = read_plan(store, run)
    except (IntegrityError, MissingError):
        return "Its plan is damaged too: run its experiment again."
    ages = [entry.age_s for entry in store.list(f"runs/{run}/") if entry.path != summary_path(run)]
    files = {name: store.read(f"runs/{run}/{name}") for name in ("experiment.yaml", "plan.json") if store.stat(f"runs/{run}/{name}")}
    summary = summarise(run, recorded.name, recorded.plan, time.time() - max(ages, default=0.0), files)
    quiet_s = min(ages, default=0.0)
    write(store, replace(summary, ended=time.time() - quiet_s) if quiet_s > FRESH_S else summary)
    return "Made anew from its plan; `edm2 report` adds the states of its tasks."


def _without_damaged_lines(store: Store, run: str, path: str) -> str:
    try:
        lines = unseal_lines(store.read(path))
    except IntegrityError:
        store.delete(path)
        return "Removed."
    whole = [line for line, values in lines if values is not None]
    store.write(path, b"".join(line + b"\n" for line in whole))
    if store.stat(appended_path(run)):
        record_appended(store, run, path)
    return f"{len(lines) - len(whole)} lines are removed."
