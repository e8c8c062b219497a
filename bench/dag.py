"""What the DAG costs beside its tasks: an experiment's wall time against its longest chain, and a task's way to its first useful work."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.compare import Spread
from bench.rows import Options, Result, Row
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task

EXPERIMENT = """\
name: bench
recipes: [digits/C]
epochs: [4, 8]
metrics: [fd]
overrides: {sample.count: 256, training.epochs: 8}
"""


class Timed(NamedTuple):
    """A run of an experiment: seconds from the command to its end, of each task, and of each until it began its own work."""

    wall: float
    tasks: dict[Ref, float]
    starts: dict[Ref, float]
    plan: list[Task]


def timed_run(experiment: str, store: Path, jobs: int) -> Timed:
    """Run an experiment by the command, in a process of its own."""
    file = store.parent / f"{store.name}.yaml"
    file.write_text(experiment, encoding="utf-8")
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pipelines.cli.main", "run", str(file), "--store", str(store), "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    wall = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}\n{done.stderr}")
    (record,) = (store / "runs").iterdir()
    events = [json.loads(line) for path in sorted(record.glob("events/*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    plan = [Task.from_json(task) for task in json.loads((record / "plan.json").read_text(encoding="utf-8"))["tasks"]]
    return Timed(wall, *_times(events), plan)


def _times(events: Sequence[Mapping[str, Any]]) -> tuple[dict[Ref, float], dict[Ref, float]]:
    """Each task's seconds, and those from its start to the event in which its process says that it begins."""
    began, ended, started = dict[Ref, float](), dict[Ref, float](), dict[Ref, float]()
    for event in events:
        ref = Ref.parse(event["task"])
        if event["kind"] == "running":
            began[ref] = event["time"]
        elif event["kind"] == "done":
            ended[ref] = event["time"]
        elif event["kind"] == "start" and ref in began:
            started.setdefault(ref, event["time"])
    return {ref: ended[ref] - began[ref] for ref in ended}, {ref: started[ref] - began[ref] for ref in started}


def longest_chain(plan: Sequence[Task], seconds: Mapping[Ref, float]) -> float:
    """The most seconds that tasks take one of which needs the other; a plan lists every task after what it needs."""
    until: dict[Ref, float] = {}
    for task in plan:
        until[task.ref] = seconds.get(task.ref, 0.0) + max((until[ref] for ref in task.needs), default=0.0)
    return max(until.values())


def _runs(options: Options, experiment: str = EXPERIMENT) -> list[Timed]:
    with tempfile.TemporaryDirectory() as folder:
        return [timed_run(experiment, Path(folder) / str(number), options.threads) for number in range(options.repeats)]


def _chain(options: Options) -> Result:
    runs = _runs(options)
    ratio = Spread.of([run.wall / longest_chain(run.plan, run.tasks) for run in runs])
    one_by_one, wall = Spread.of([sum(run.tasks.values()) for run in runs]), Spread.of([run.wall for run in runs])
    return Result(f"{ratio.text()}× its longest chain", f"{one_by_one.text(1)} s", f"{wall.text(1)} s")


def _start(options: Options) -> Result:
    starts: dict[str, list[float]] = {}
    for run in _runs(options):
        for ref, seconds in run.starts.items():
            starts.setdefault(ref.stage, []).append(seconds)
    words = ", ".join(f"{stage} {Spread.of(found).median:.2f} s" for stage, found in starts.items())
    plain = Spread.of([_seconds([sys.executable, "-c", "import edm2core.stages.metrics"]) for _ in range(options.repeats)])
    every = Spread.of([seconds for found in starts.values() for seconds in found])
    return Result(words, f"{plain.text()} s", f"{every.text()} s")


def _seconds(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begun


ROWS = [
    Row("dag", "an experiment on digits as a DAG, {threads} tasks side by side; plain: its tasks one after another", "≤ 1.10×", _chain),
    Row("task", "a task's way to its first useful work; plain: a new interpreter that imports a stage", "measured and cut", _start),
]
