"""What a list of runs shows of each: a small record in the run's folder, so that no plan has to be read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeVar

from edm2core.errors import IntegrityError, MissingError
from edm2core.manifest import FileRecord, Ref
from edm2core.store.base import Store

S = TypeVar("S")
T = TypeVar("T")
FRESH_S = 60.0  # a run that wrote something since then is being worked on
AT_ONCE = 16  # requests to a remote store


@dataclass(frozen=True)
class Summary:
    """What was asked of a run, when, and what came of it."""

    id: str
    name: str
    tasks: int
    recipes: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    asked: float  # seconds since 1970: when it was last started
    ended: float | None = None  # when nobody worked on it any more
    states: dict[str, int] = field(default_factory=dict)  # of how many tasks, as of its last report
    files: dict[str, FileRecord] = field(default_factory=dict)  # of its folder, as they were written

    def dumps(self) -> bytes:
        return json.dumps({**asdict(self), "files": {n: list(f) for n, f in self.files.items()}}, indent=1).encode()

    @classmethod
    def loads(cls, data: bytes, where: str = "") -> Self:
        """The summary in `data`; raises IntegrityError if it is none."""
        try:
            values = json.loads(data)
            lists = {name: tuple(values[name]) for name in ("recipes", "datasets", "seeds", "epochs")}
            return cls(**{**values, **lists, "files": {n: FileRecord(int(s), str(d)) for n, (s, d) in values["files"].items()}})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise IntegrityError(f"This is not the summary of a run: {error}.", where=where, do_next="Run its experiment again.") from None


@dataclass(frozen=True)
class Listed:
    """A run as a list shows it. `state`: done, running, failed, stopped with something left to do, or unreadable."""

    summary: Summary
    state: str
    done: int | None  # tasks with a result; None where its plan cannot be read

    @property
    def id(self) -> str:
        return self.summary.id


def summarise(run: str, name: str, tasks: Iterable[Mapping[str, Any]], asked: float, files: Mapping[str, bytes]) -> Summary:
    """The summary of a plan, its tasks as they stand in JSON."""
    tasks = list(tasks)

    def values(of: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(task["subject"][of] for task in tasks if task["subject"].get(of) is not None))

    records = {file: FileRecord(len(data), hashlib.sha256(data).hexdigest()) for file, data in files.items()}
    epochs = tuple(sorted(values("epoch")))
    return Summary(run, name, len(tasks), values("recipe"), values("dataset"), values("seed"), epochs, asked, files=records)


def write(store: Store, summary: Summary) -> None:
    """Put it into the run's folder."""
    store.write(_path(summary.id), summary.dumps())


def change(store: Store, run: str, **changes: Any) -> None:
    """Change what a run's summary says; `files` are added. Nothing is done where there is none: a run of an earlier version."""
    with suppress(MissingError, IntegrityError):
        before = Summary.loads(store.read(_path(run)))
        write(store, replace(before, **{**changes, "files": before.files | changes.get("files", {})}))


def listing(store: Store) -> list[Listed]:
    """Every run of a store, the last started first; what cannot be read of one is left out of its line."""
    found = each(store, lambda run: list_one(store, run), store.folders("runs/"))
    return sorted((listed for listed in found if listed), key=lambda listed: (-listed.summary.asked, listed.id))


def each(store: Store, work: Callable[[S], T], things: Iterable[S]) -> list[T]:
    """`work` on all things in order: side by side on a remote store, where most of the time is waiting."""
    things = list(things)
    if getattr(store, "root", None) is not None or len(things) < 2:
        return [work(thing) for thing in things]
    with ThreadPoolExecutor(min(AT_ONCE, len(things))) as pool:
        return list(pool.map(work, things))


def present(store: Store, refs: Iterable[Ref]) -> list[bool]:
    """Whether each result is in the store, by its manifest's being there."""
    return each(store, lambda ref: store.stat(ref.manifest) is not None, refs)


def list_one(store: Store, run: str) -> Listed | None:
    """One run as the list shows it; None if there is no such run."""
    summary = None
    with suppress(MissingError, IntegrityError):
        summary = Summary.loads(store.read(_path(run)))
        if summary.ended is not None and summary.states:
            done = sum(count for state, count in summary.states.items() if state in ("done", "reused"))
            return Listed(summary, _state(summary, done), done)
    try:
        values = json.loads(store.read(f"runs/{run}/plan.json"))
        refs = [Ref(task["stage"], task["key"]) for task in values["tasks"]]
        ages = [entry.age_s for entry in store.list(f"runs/{run}/")]
        summary = summary or summarise(run, str(values["name"]), values["tasks"], time.time() - max(ages), {})
    except MissingError:
        return None  # only logs, or somebody's own folder
    except (ValueError, TypeError, KeyError):
        return Listed(summary or Summary(run, run, 0, (), (), (), (), 0.0), "unreadable", None)
    done = sum(present(store, refs))
    fresh = summary.ended is None and min(ages) < FRESH_S
    return Listed(summary, "running" if fresh and done < len(refs) else _state(summary, done), done)


def _state(summary: Summary, done: int) -> str:
    return "done" if done == summary.tasks else "failed" if summary.states.keys() & {"failed", "damaged"} else "stopped"


def _path(run: str) -> str:
    return f"runs/{run}/summary.json"
