"""How long a list of many runs takes: `edm2 runs` as a command, on a store of 500 runs."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.compare import Spread
from bench.rows import Options, Result, Row
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store.local import LocalStore
from edm2core.store.results import commit
from edm2core.store.runs import open_run
from edm2core.store.summary import change

RUNS, UNFINISHED = 500, 10
EXPERIMENT = "name: bench-{number}\nrecipes: [digits/C, digits/E, digits/G]\nseeds: [{number}]\nepochs: [10, 20, 40]\nmetrics: [fd]\n"


def fill(root: Path, runs: int, unfinished: int) -> LocalStore:
    """A store with so many runs of different experiments, all but the last few finished, each with a plan, events and a report's files."""
    store = LocalStore(root)
    file = root / "experiment.yaml"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(runs):
        file.write_text(EXPERIMENT.format(number=number), encoding="utf-8")
        experiment = load_experiment(file)
        tasks = plan(experiment, {f"data:{recipe.name}": "builtin:digits" for recipe in experiment.recipes})
        run = open_run(store, experiment, tasks, {})
        run.log_path(tasks[0]).parent.mkdir(parents=True)
        run.log_path(tasks[0]).write_text("a line\n" * 1000, encoding="utf-8")
        for task in tasks:
            run.log({"kind": "done", "task": str(task.ref), "error": ""})
        for name in ("report.html", "results.json", "results.csv"):
            (root / run.folder / name).write_text("x" * 10_000, encoding="utf-8")
        if number >= runs - unfinished:
            for task in tasks[::2]:
                commit(store, _made(task))
        else:
            change(store, run.id, states={"done": len(tasks)}, ended=time.time())
    file.unlink()
    return store


def _made(task: Task) -> Manifest:
    return Manifest(task.stage, task.version, task.key, task.title, task.settings, {}, {}, "attempt", {})


def _list(options: Options) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        store = fill(Path(folder) / "store", RUNS, UNFINISHED)
        plans = [Path(store.uri) / "runs" / name / "plan.json" for name in store.folders("runs/")]
        plain, product, spent = [], [], []
        for _ in range(options.repeats):
            begun = time.perf_counter()
            for path in plans:
                json.loads(path.read_bytes())
            plain.append(time.perf_counter() - begun)
            begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "pipelines.cli.main", "runs", "--store", store.uri], check=True, stdout=subprocess.DEVNULL
            )
            product.append(time.perf_counter() - begun)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    took = f"{Spread.of(product).text()} s"
    return Result(took, f"{Spread.of(plain).text()} s", took, cpu=f"{Spread.of(spent).text()} s")


ROWS = [Row("listing", f"`edm2 runs` in a store of {RUNS} runs, {UNFINISHED} unfinished; plain: reading every plan", "< 2 s", _list)]
