"""What the pages show. It is read from the store and cached for a moment, so that many browsers cost no more than one."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from components.execute import progress_of
from components.launcher.log_store import log_folder
from components.launcher.spec import work_ref
from components.report.write import read_outcomes
from edm2core.errors import EdmError, IntegrityError, MissingError
from edm2core.events import MARK, numbers, parse, readable
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.report import Outcome
from edm2core.report.overview import FILE
from edm2core.store.base import Entry, Store, each, is_local
from edm2core.store.leases import Holder, holder
from edm2core.store.results import load
from edm2core.store.runs import Run, load_plan
from edm2core.store.summary import Listed, list_one, listing

T = TypeVar("T")
LOCAL_S, REMOTE_S = 1.0, 5.0  # how long values are cached
RESTS = 5  # values are cached at least this many times as long as reading took, so that a slow store is not asked all the time
TAIL = 64 * 1024  # bytes of a log that are searched for a task's progress
SHOWN = 256 * 1024  # bytes of a log that its page shows
ORDER = ("running", "failed", "damaged", "interrupted", "skipped", "waiting", "done")


@dataclass(frozen=True)
class TaskView:
    """A task of a run as its page shows it."""

    task: Task
    state: str
    reason: str = ""
    manifest: Manifest | None = None
    share: float | None = None  # 0 to 1: how far a running task is, by its own words
    words: str = ""  # what a finished task measured, or the progress of a running one
    log: bool = False  # whether the store has anything that it printed


@dataclass(frozen=True)
class Overview:
    """What a run's report found in short, as `edm2core.report.overview` has it."""

    headlines: tuple[str, ...] = ()  # the headline verdicts as sentences that name their metric
    values: tuple[dict[str, Any], ...] = ()  # the means that verdicts are drawn from
    best: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # the best mean of each headline metric, by the metric's label


@dataclass(frozen=True)
class RunView:
    """A run as its page shows it."""

    listed: Listed
    tasks: list[TaskView]
    files: list[Entry]  # in its folder, the report first, without logs and events
    counts: dict[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()  # which of its records are damaged, and how

    @property
    def running(self) -> list[TaskView]:
        return [view for view in self.tasks if view.state == "running"]

    @property
    def trouble(self) -> list[TaskView]:
        return [view for view in self.tasks if view.reason and view.state in ("failed", "damaged", "skipped")]


class Look:
    """Reads a store for the pages. Its answers are at most about a second old, five seconds on a remote store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._fresh_s = LOCAL_S if is_local(store) else REMOTE_S
        self._cache: dict[Hashable, tuple[float, Any]] = {}  # until when a value counts, and the value
        self._plans: dict[str, tuple[bytes, Plan, dict[Ref, Ref]]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    def runs(self) -> list[Listed]:
        """All runs, the last started first."""
        return self._recent("runs", lambda: listing(self.store))

    def overview(self, run: str) -> Overview:
        """What a run's report found; nothing if it has no report, or one of an earlier version."""
        return self._recent(("overview", run), lambda: self._overview(run))

    def overviews(self) -> list[tuple[Listed, Overview]]:
        """All runs, each with what its report found."""
        runs = self.runs()
        return list(zip(runs, each(self.store, lambda listed: self.overview(listed.id), runs), strict=True))

    def run(self, run: str) -> RunView:
        """One run, without tasks if its plan is damaged. Raises MissingError if there is no such run."""
        return self._recent(("run", run), lambda: self._run(run))

    def stages(self) -> list[tuple[str, int]]:
        """The stages that have results, and how many results each has."""
        return self._recent("stages", lambda: [(s, len(self.store.folders(f"results/{s}/"))) for s in self.store.folders("results/")])

    def keys(self, stage: str) -> list[str]:
        return self._recent(("keys", stage), lambda: list(self.store.folders(f"results/{stage}/")))

    def results(self, refs: Iterable[Ref]) -> list[Manifest | None]:
        """The manifests of results; None for one that is missing or damaged."""
        return each(self.store, self._manifest, refs)

    def result(self, ref: Ref) -> Manifest:
        """The manifest of a result; raises EdmError if it is missing or damaged."""
        manifest = load(self.store, ref)
        if manifest is None:
            raise MissingError(f"There is no result {ref} in this store.", where=ref.manifest)
        return manifest

    def log(self, run: str, ref: Ref) -> tuple[Task, str, bool]:
        """A task of a run, the end of what it printed, and whether it is running."""
        view = next((view for view in self.run(run).tasks if view.task.ref == ref), None)
        if view is None:
            raise MissingError(f"{run} has no task {ref}.", where=f"runs/{run}")
        logs = self._logs(run, self._entries(run))[ref]
        text = self._tail(logs, SHOWN) if logs else ""
        lines = (readable(line) for line in text.splitlines())
        return view.task, "\n".join(line for line in lines if line), view.state == "running"

    def _overview(self, run: str) -> Overview:
        path = f"runs/{run}/{FILE}"
        if not confined(self.store, path):
            return Overview()
        try:
            facts = json.loads(self.store.read(path))
            headlines = tuple(f"{verdict['label']}: {verdict['sentence']}" for verdict in facts["verdicts"] if verdict["headline"])
            best: dict[str, dict[str, Any]] = {}
            for value in facts["values"]:
                if value["headline"]:
                    best.setdefault(value["label"], value)  # the best comes first among those of its metric
            return Overview(headlines, tuple(facts["values"]), best)
        except (EdmError, ValueError, TypeError, KeyError):
            return Overview()

    def _run(self, run: str) -> RunView:
        if not confined(self.store, f"runs/{run}"):
            raise MissingError(f"There is no run {run} in this store.", where=f"runs/{run}")
        entries = self._entries(run)
        files = [entry for entry in entries if entry.path.count("/") == 2]
        files.sort(key=lambda entry: (not entry.path.endswith("/report.html"), entry.path))
        try:
            tasks, works = self._plan(run)
        except IntegrityError as error:
            listed = self._listed(run)
            return RunView(listed, [], files, damaged=tuple(dict.fromkeys((error.what, *filter(None, [listed.trouble])))))
        manifests = dict(zip([t.ref for t in tasks], each(self.store, lambda task: self._read(task.ref), tasks), strict=True))
        undone = list(dict.fromkeys(works[task.ref] for task in tasks if manifests[task.ref] is None))
        last_holders = dict(zip(undone, each(self.store, lambda ref: holder(self.store, ref), undone), strict=True))
        holders = {ref: last for ref, last in last_holders.items() if last and last.alive}
        record = read_outcomes(Run(run, self.store))
        busy = set(holders)
        logs = self._logs(run, entries)
        views = []
        for task in tasks:
            manifest, log = manifests[task.ref], bool(logs[task.ref])
            if isinstance(manifest, EdmError):
                view = TaskView(task, "damaged", manifest.what, log=log)
            elif manifest is not None:
                view = TaskView(task, "done", manifest=manifest, words=manifest.in_words, log=log)
            elif works[task.ref] in busy:
                busy.discard(works[task.ref])  # of a training's snapshots only the next one is running
                view = self._running(task, holders[works[task.ref]], logs[task.ref])
            else:
                outcome = record.outcomes.get(task.ref, Outcome("waiting"))
                view = TaskView(task, "waiting" if outcome.state in ("done", "reused") else outcome.state, outcome.reason, log=log)
            views.append(view)
        listed = self._listed(run)
        counts = dict(sorted(Counter(v.state for v in views).items(), key=lambda c: ORDER.index(c[0])))
        leases = (str(worker.damaged) for worker in holders.values() if worker.damaged)
        return RunView(listed, views, files, counts, tuple(filter(None, (listed.trouble, *record.damaged, *leases))))

    def _listed(self, run: str) -> Listed:
        listed = list_one(self.store, run)
        if listed is None:
            raise MissingError(f"There is no run {run} any more.", where=f"runs/{run}")
        return listed

    def _running(self, task: Task, worker: Holder, logs: list[Entry]) -> TaskView:
        reason = f"on {worker.process.host} since {time.strftime('%H:%M', time.localtime(worker.started))}"
        for line in reversed(self._tail(logs, TAIL).splitlines() if logs else []):
            event = parse(line[line.find(MARK) :]) if MARK in line else None
            if event and event["kind"] == "progress":
                with suppress(TypeError, ValueError, KeyError, ZeroDivisionError):
                    event = progress_of(task, event)
                    share = min(1.0, max(0.0, float(event["done"]) / float(event["total"])))
                    return TaskView(task, "running", reason, share=share, words=numbers(event), log=True)
        return TaskView(task, "running", reason, log=bool(logs))

    def _logs(self, run: str, entries: list[Entry]) -> dict[Ref, list[Entry]]:
        """The logs of each task's job, oldest first. All snapshots of a training have one job."""
        by_folder: dict[str, list[Entry]] = {}
        for entry in entries:
            by_folder.setdefault(entry.path.rpartition("/")[0], []).append(entry)
        tasks, works = self._plan(run)
        by_work: dict[Ref, dict[Entry, None]] = {}
        for task in tasks:
            for folder in (f"runs/{run}/logs/{task.stage}-{task.key}", log_folder(run, task)):
                by_work.setdefault(works[task.ref], {}).update(dict.fromkeys(by_folder.get(folder, [])))
        return {task.ref: sorted(by_work[works[task.ref]], key=lambda entry: -entry.age_s) for task in tasks}

    def _tail(self, logs: list[Entry], most: int) -> str:
        last = logs[-1]
        start = max(0, last.size - most)
        data = self.store.read_part(last.path, start, most + TAIL)  # the file may have grown
        if start:
            data = data.partition(b"\n")[2]
        return data.decode(errors="replace")

    def _plan(self, run: str) -> tuple[Plan, dict[Ref, Ref]]:
        """A run's tasks, and the name of each one's lease. These are slow to compute, and cached while the plan is the same."""
        path = f"runs/{run}/plan.json"
        try:
            data = self.store.read(path)
        except EdmError:
            data = b""  # `load_plan` says what is wrong
        if run not in self._plans or self._plans[run][0] != data:
            tasks = load_plan(self.store, run)[1]
            self._plans[run] = (data, tasks, {task.ref: work_ref(task) for task in tasks})
        return self._plans[run][1:]

    def _entries(self, run: str) -> list[Entry]:
        return [entry for entry in self.store.list(f"runs/{run}/") if confined(self.store, entry.path)]

    def _read(self, ref: Ref) -> Manifest | EdmError | None:
        try:
            return self._manifest(ref) or load(self.store, ref)
        except EdmError as error:
            return error

    def _manifest(self, ref: Ref) -> Manifest | None:
        with suppress(EdmError):
            return self._recent(("result", ref), lambda: load(self.store, ref))
        return None

    def _recent(self, name: Hashable, read: Callable[[], T]) -> T:
        """The value that was read a moment ago, or is read now. Of several threads that ask, one reads."""
        with self._locks.setdefault(name, threading.Lock()):
            until, value = self._cache.get(name, (float("-inf"), None))
            if (begun := time.monotonic()) > until:
                value, ended = read(), time.monotonic()
                if len(self._cache) > 5000:
                    self._cache.clear()
                self._cache[name] = (ended + max(self._fresh_s, RESTS * (ended - begun)), value)
            recent: T = value
            return recent


def confined(store: Store, path: str) -> bool:
    """Whether a path stays inside the store. In a local store a link could lead out; a remote store has no links."""
    root = getattr(store, "root", None)
    return root is None or (Path(root) / path).resolve().is_relative_to(Path(root).resolve())
