"""Damage to what is no result: leases, unfinished work, wishes, and runs' summaries, events and logs; and what mends each."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import Ref, diff_path
from edm2core.store.appended import accept_appended, appended_path, changed_appended
from edm2core.store.base import Store
from edm2core.store.leases import PATIENCE_S, mend, newest
from edm2core.store.plans import read_plan
from edm2core.store.runs import Run
from edm2core.store.scratch import Scratch
from edm2core.store.sealed import unseal
from edm2core.store.summary import FRESH_S, Summary, summarise, summary_path, write
from edm2core.store.wanted import read_wish, wishes

NEWEST = 10**6  # above every generation: such a writer may remove pieces of all


class Damage(NamedTuple):
    """Something that is not as it was written; `mend` does what can be done, and says what that was."""

    path: str
    what: str
    mend: Callable[[], str]


def of_leases(store: Store, younger_than_s: float = float("inf")) -> Iterator[Damage]:
    """Leases, of those heard of since then, of which the last record or beat cannot be read."""
    for ref, last in newest(store, younger_than_s).items():
        if last.damaged:
            path, _, what = last.damaged.partition(": ")

            def give_back(ref: Ref = ref, age: float = last.beat_age_s) -> str:
                if age < PATIENCE_S:
                    return "Somebody may hold it: look again in a minute."
                mend(store, ref)
                return "Given back."

            yield Damage(path, what, give_back)


def of_scratch(store: Store, refs: Iterable[Ref]) -> Iterator[Damage]:
    """Pieces of the unfinished work on these whose bytes are not those recorded, and wishes for snapshots that cannot be read."""
    for ref in refs:
        scratch = Scratch(store, ref.scratch, NEWEST)
        with tempfile.TemporaryDirectory() as folder:
            for path, what in scratch.damaged(Path(folder)):
                yield Damage(path, what, lambda scratch=scratch, path=path: scratch.drop(path) or "Removed.")  # type: ignore[misc]
        for path in wishes(store, ref):
            try:
                with suppress(MissingError):
                    read_wish(store, path)
            except IntegrityError as error:
                yield Damage(path, error.what, lambda path=path: store.delete(path) or "Removed; its run wishes again when it is started.")  # type: ignore[misc,func-returns-value]


def of_code(store: Store) -> Iterator[Damage]:
    """What is kept of changed code and is not as its name says."""
    for entry in store.list("code/"):
        if entry.path != diff_path(hashlib.sha256(store.read(entry.path)).hexdigest()):
            yield Damage(entry.path, "It has been changed since it was written.", lambda path=entry.path: store.delete(path) or "Removed.")  # type: ignore[misc,func-returns-value]


def of_run(store: Store, run: str) -> Iterator[Damage]:
    """A run's summary and the lines of its events: what can be told without reading more."""
    try:
        Summary.load(store, run)
    except MissingError:
        pass  # of an earlier version
    except IntegrityError as error:
        yield Damage(summary_path(run), error.what, lambda: _summarise(store, run))
    for words in Run(run, store).events()[1]:
        path, _, what = words.partition(": ")
        yield Damage(path, what, lambda path=path: _without_damaged_lines(store, run, path))  # type: ignore[misc]


def of_appended(store: Store, run: str) -> Iterator[Damage]:
    """A run's events and logs and the event files of its trainings that are not as they were when it ended."""
    try:
        for path, what in changed_appended(store, run):
            yield Damage(path, what, lambda path=path: _accept(store, run, path))  # type: ignore[misc]
    except IntegrityError as error:
        yield Damage(appended_path(run), error.what, lambda: _accept(store, run))


def _accept(store: Store, run: str, *paths: str) -> str:
    accept_appended(store, run, *paths)
    return "What is there stays; its digest is recorded anew." if paths else "Made anew from what there is."


def _summarise(store: Store, run: str) -> str:
    try:
        found = read_plan(store, run)
    except (IntegrityError, MissingError):
        return "Its plan is damaged too: run its experiment again."
    ages = [entry.age_s for entry in store.list(f"runs/{run}/") if entry.path != summary_path(run)]
    data = {name: store.read(f"runs/{run}/{name}") for name in ("experiment.yaml", "plan.json") if store.stat(f"runs/{run}/{name}")}
    made = summarise(run, found.name, found.plan, time.time() - max(ages, default=0.0), data)
    quiet_s = min(ages, default=0.0)
    write(store, replace(made, ended=time.time() - quiet_s) if quiet_s > FRESH_S else made)
    return "Made anew from its plan; `edm2 report` adds what its report says."


def _without_damaged_lines(store: Store, run: str, path: str) -> str:
    try:
        lines = store.read(path).splitlines()
    except IntegrityError:
        store.delete(path)
        return "Removed."
    whole = [line for line in lines if _is_whole(line)]
    store.write(path, b"".join(line + b"\n" for line in whole))
    if store.stat(appended_path(run)):
        accept_appended(store, run, path)
    return f"{len(lines) - len(whole)} lines are removed."


def _is_whole(line: bytes) -> bool:
    try:
        unseal(line)
    except ValueError:
        return False
    return True
