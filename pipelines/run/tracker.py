"""Tells an MLflow server about a run while it goes on. This is done in a thread, so that the run waits for it only a little at its end."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from components.report.mlflow_server import MlflowServer
from edm2core.errors import EdmError
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.report import Outcome, RunInfo, collect
from edm2core.report.tracked import tracked
from edm2core.store.runs import Run

LEAST_S, SHARE = 10.0, 0.1  # the least time between two rounds of logging, and the largest part of the time that they may take
OUTAGE_S = 60.0  # the time until a server that did not answer is asked again
LAST_S = 30.0  # the most time that the end of a run waits for the last round


class Tracker:
    """Logs a run's trainings. `say` is called with what a person should know, once for each outage."""

    def __init__(self, server: MlflowServer, name: str, record: Run, tasks: Iterable[Task], say: Callable[[str], None]) -> None:
        self._server, self._name, self._record, self._say = server, name, record, say
        self._plan = Plan.of(tasks)
        self._live: dict[Ref, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._outcomes: Mapping[Ref, Outcome] = {}
        self._said = ""
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()
        say(f"logging to MLflow at {server.uri}, experiment {name}")

    def event(self, task: Task, event: dict[str, Any]) -> None:
        """Keep a row of a training's curve, if an event of the task's process holds one."""
        if task.stage == "snapshot" and event["kind"] == "progress" and event.get("loss") is not None:
            with self._lock:
                self._live.setdefault(trajectory_ref(task), []).append(event)
            self._news.set()

    def changed(self) -> None:
        """Note that a task has begun or ended."""
        self._news.set()

    def close(self, tasks: Iterable[Task], outcomes: Mapping[Ref, Outcome]) -> None:
        """Log how the run ended, and wait for that at most LAST_S."""
        self._plan, self._outcomes = Plan.of(tasks), outcomes
        self._closing.set()
        self._news.set()
        self._thread.join(LAST_S)
        if self._thread.is_alive():
            self._say(f"MLflow at {self._server.uri} takes its time; what it was not told is logged when the same command runs again.")

    def _follow(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            ended, begun = self._closing.is_set(), time.monotonic()
            logged = self._log(ended)
            if ended:
                return
            self._closing.wait(max(LEAST_S, (time.monotonic() - begun) / SHARE) if logged else OUTAGE_S)

    def _log(self, ended: bool) -> bool:
        """Log all that is known by now; False if that failed."""
        try:
            with self._lock:
                live = {ref: list(rows) for ref, rows in self._live.items()}
            report = collect(self._name, self._plan, self._record.store, RunInfo(self._outcomes), pictures=False)
            self._server.log(self._name, tracked(report, self._record.id, live), ended=ended)
            words = ""
        except EdmError as error:
            words = f"{error.what} {error.do_next}"
        except Exception as error:  # a failure of the tracker never ends the experiment
            words = f"MLflow was not told: {type(error).__name__}: {error}"
        if words and words != self._said:
            self._say(words)
        self._said = words
        return not words
