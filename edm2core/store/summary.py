"""Summaries of runs: a small record in each run's folder, so that a list of runs needs to read no plans."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from edm2core.errors import IntegrityError, MissingError, StoreError
from edm2core.plan.manifest import FileRecord, parse_records
from edm2core.plan.tasks import Task
from edm2core.store.base import Store, difference, each, is_local
from edm2core.store.plans import plan_path, read_plan
from edm2core.store.sealed import read_sealed, sealed

FRESH_S = 60.0  # a run counts as being worked on if any of its files was written within this time


@dataclass(frozen=True)
class Summary:
    """What a run was asked for, when, and what came of it."""

    id: str
    name: str
    tasks: int
    recipes: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    asked: float  # seconds since 1970: when it was last started
    ended: float | None = None  # when work on it ended; None while somebody may be at work
    states: dict[str, int] = field(default_factory=dict)  # state → how many tasks are in it, by the run's last report
    files: dict[str, FileRecord] = field(default_factory=dict)  # size and digest of the files in its folder, as they were written

    @classmethod
    def load(cls, store: Store, run: str) -> "Summary":
        """A run's summary. Raises MissingError if a run of an earlier version has none, IntegrityError if it is damaged."""

        def parse(values: dict[str, Any]) -> Summary:
            lists = {name: tuple(values[name]) for name in ("recipes", "datasets", "seeds", "epochs")}
            numbers = {"asked": float(values["asked"]), "tasks": int(values["tasks"])}
            return cls(**{**values, **lists, **numbers, "files": parse_records(values["files"])})

        return read_sealed(store, summary_path(run), parse, [field.name for field in fields(cls)])


def epochs_in_words(epochs: Sequence[int]) -> str:
    """A run's epochs, which are ascending, in words: up to four are listed, more are counted."""
    if len(epochs) > 4:
        return f"{len(epochs)} epochs from {epochs[0]} to {epochs[-1]}"
    return f"epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}" if epochs else ""


@dataclass(frozen=True)
class Listed:
    """A run as a list shows it. Its state is done, running, failed, stopped (with tasks left to do) or damaged."""

    summary: Summary
    state: str
    done: int | None  # how many tasks have a result; None if its plan cannot be read
    trouble: str = ""  # which record is damaged, and how

    @property
    def id(self) -> str:
        return self.summary.id

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "done": self.done, "trouble": self.trouble or None, **asdict(self.summary)}


def summarise(run: str, name: str, tasks: Iterable[Task], asked: float, files: Mapping[str, bytes]) -> Summary:
    """The summary of a plan; `files` are the bytes of files in the run's folder."""
    tasks = list(tasks)
    trained = [task.subject for task in tasks if task.subject.recipe]
    recipes = tuple(dict.fromkeys(subject.recipe for subject in trained))
    seeds = tuple(dict.fromkeys(subject.seed for subject in trained))
    datasets = tuple(dict.fromkeys(task.subject.dataset for task in tasks if task.subject.dataset))
    epochs = tuple(sorted({subject.epoch for subject in trained}))
    return Summary(run, name, len(tasks), recipes, datasets, seeds, epochs, asked, files=records_of(files))


def records_of(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """Size and digest of each file, by its name in a run's folder."""
    return {file: FileRecord(len(data), hashlib.sha256(data).hexdigest()) for file, data in files.items()}


def write(store: Store, summary: Summary) -> None:
    """Write a summary into its run's folder."""
    store.write(summary_path(summary.id), sealed(asdict(summary)))


def change(store: Store, run: str, **changes: Any) -> None:
    """Change fields of a run's summary; `files` are added to those it has. A run of an earlier version has no summary, and gets none."""
    with suppress(MissingError, IntegrityError):
        before = Summary.load(store, run)
        write(store, replace(before, **{**changes, "files": before.files | changes.get("files", {})}))


def listing(store: Store) -> list[Listed]:
    """Every run of a store, the last started first. What cannot be read of a run is left out of its line."""
    runs = each(store, lambda run: list_one(store, run), store.folders("runs/"))
    return sorted((listed for listed in runs if listed), key=lambda listed: (-listed.summary.asked, listed.id))


def list_one(store: Store, run: str) -> Listed | None:
    """One run as a list shows it; None if there is no such run."""
    summary, trouble = None, ""
    try:
        summary = Summary.load(store, run)
    except MissingError:
        pass  # a run of an earlier version
    except IntegrityError as error:
        trouble = f"summary.json: {error.what}"
    if summary and summary.ended is not None and summary.states:
        done = sum(count for state, count in summary.states.items() if state in ("done", "reused"))
        trouble = _changed_plan(store, summary)
        return Listed(summary, "damaged" if trouble else _state(summary, done), done, trouble)
    known = summary or Summary(run, run, 0, (), (), (), (), 0.0)
    try:
        recorded = read_plan(store, run)
    except MissingError:
        if summary is None and not trouble:
            return None  # a folder with logs alone, or the user's own
        return Listed(known, "damaged", None, trouble or "plan.json is missing.")
    except IntegrityError as error:
        return Listed(known, "damaged", None, error.what)
    ages = [entry.age_s for entry in store.list(f"runs/{run}/")]
    summary = summary or summarise(run, recorded.name, recorded.plan, time.time() - max(ages, default=0.0), {})
    done = sum(each(store, lambda task: store.stat(task.ref.manifest) is not None, recorded.plan))
    fresh = summary.ended is None and min(ages, default=0.0) < FRESH_S
    state = "running" if fresh and done < summary.tasks else _state(summary, done)
    return Listed(summary, "damaged" if trouble else state, done, trouble)


def _changed_plan(store: Store, summary: Summary) -> str:
    """What is wrong with a finished run's plan. A remote store is not asked, since a list of runs would then take a large read for each."""
    if not is_local(store) or "plan.json" not in summary.files:
        return ""
    try:
        return difference(store, plan_path(summary.id), summary.files["plan.json"], "plan.json")
    except StoreError as error:
        if not error.permanent:
            raise
        return f"plan.json: {error.what}"


def _state(summary: Summary, done: int) -> str:
    return "done" if done == summary.tasks else "failed" if summary.states.keys() & {"failed", "damaged"} else "stopped"


def summary_path(run: str) -> str:
    return f"runs/{run}/summary.json"
