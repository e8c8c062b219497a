"""How long verbs take on a large store: `python -m bench.big_store --runs 5000 --results 100000 [--store URI]`.

Every run has a plan, a summary and events, every result a manifest and a file, every job a lease that was given back; the runs share
their data and nothing else. One result in ten is needed by no run. All is younger than an hour, so `gc` reads every lease, its worst case.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from components.launcher.spec import work_ref
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store import Store, open_store
from edm2core.store.averages import averages_of
from edm2core.store.base import each, file_record
from edm2core.store.local import LocalStore
from edm2core.store.sealed import sealed
from edm2core.store.summary import summarise, summary_path
from pipelines.look.server import listen

EXPERIMENT = "name: big\nrecipes: [digits/C]\nseeds: {seeds}\nepochs: [10, 20, 40]\nmetrics: [fd]\nprobe: false\n"
AT_ONCE = 1000  # runs planned as the seeds of one experiment


def fill(store: Store, runs: int, results: int) -> str:
    """Put so many runs and results into the store; the id of one run."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.write_bytes(b"x" * 200)
        record = file_record(data)
    refs: dict[Ref, Task] = {}
    averages: dict[Ref, Task] = {}
    for run, tasks in _planned(runs):
        plan_json = sealed({"name": run, "absent": {}, "tasks": [task.to_json() for task in tasks]})
        _write(store, f"runs/{run}/plan.json", plan_json)
        counts = {"done": len(tasks)}
        summary = summarise(run, run, tasks, time.time(), {"plan.json": plan_json})
        ended = {**vars(summary), "ended": time.time(), "states": counts, "files": {n: list(f) for n, f in summary.files.items()}}
        _write(store, summary_path(run), sealed(ended))
        events = (sealed({"time": 0.0, "kind": "done", "task": str(task.ref), "error": ""}, None) for task in tasks)
        _write(store, f"runs/{run}/events/1.jsonl", b"\n".join(events))
        refs |= {task.ref: task for task in tasks}
        snapshot = next(task for task in tasks if task.stage == "snapshot")
        averages |= dict.fromkeys(sorted(averages_of(snapshot, trajectory_ref(snapshot)))[: max(0, results // runs - 10)], snapshot)
    forgotten = {Ref("sample", f"{number:020x}"): next(iter(refs.values())) for number in range(results // 10)}
    kept = dict([*refs.items(), *averages.items()][: results - len(forgotten)])

    def put(item: tuple[Ref, Task]) -> None:
        ref, task = item
        inputs = {name: str(ref) for name, ref in task.inputs.items()}
        made = Manifest(ref.stage, 1, ref.key, task.title, task.settings, inputs, {}, "attempt", {"data": record}, task.subject.to_json())
        _write(store, made.path("data"), b"x" * 200)
        _write(store, ref.manifest, made.dumps())

    def give_back(ref: Ref) -> None:
        process = {"host": "node", "boot": "boot", "namespace": "", "pid": 1, "begun": "1"}
        record = {"owner": "", "process": process, "started": time.time(), "token": "0" * 16}
        _write(store, f"leases/{ref.stage}/{ref.key}/000001.json", sealed(record, None))
        _write(store, f"leases/{ref.stage}/{ref.key}/000001.beat", sealed({"released": True, "time": time.time()}, None))

    each(store, put, [*kept.items(), *forgotten.items()])
    each(store, give_back, dict.fromkeys(work_ref(task) for ref, task in kept.items() if ref == task.ref))
    return "big-00000"


def _planned(runs: int) -> Iterator[tuple[str, list[Task]]]:
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, runs, AT_ONCE):
            seeds = list(range(first, min(first + AT_ONCE, runs)))
            file = Path(folder) / "e.yaml"
            file.write_text(EXPERIMENT.format(seeds=seeds), encoding="utf-8")
            tasks = plan(load_experiment(file), {"data:digits/C": "builtin:digits"})
            shared = [task for task in tasks if not task.subject.recipe]
            own: dict[int, list[Task]] = {seed: [] for seed in seeds}
            for task in tasks:
                if task.subject.recipe:
                    own[task.subject.seed].append(task)
            yield from ((f"big-{seed:05d}", [*shared, *own[seed]]) for seed in seeds)


def _write(store: Store, path: str, data: bytes) -> None:
    """In a folder without waiting for the disk, as nothing of it matters."""
    if isinstance(store, LocalStore):
        file = store.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    else:
        store.write(path, data)


def measure(store: Store, run: str) -> dict[str, float]:
    """Seconds that verbs and pages take, each as a process of its own or as a first request."""
    verbs = {
        "runs": ["runs", "--store", store.uri],
        "gc": ["gc", "--store", store.uri, "--days", "0"],
        "verify": ["verify", store.uri],
        "report": ["report", run, "--store", store.uri],
    }
    took = {}
    for verb, arguments in verbs.items():
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "pipelines.cli.main", *arguments], stdout=subprocess.DEVNULL, check=True)
        took[verb], after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        took[f"{verb} cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        sys.stdout.write(f"{verb}: {took[verb]:.1f} s, of a core {took[f'{verb} cpu']:.1f} s\n")
        sys.stdout.flush()
    server = listen(store, "localhost", 0, exactly=True)
    threading.Thread(target=server.run, daemon=True).start()
    for page in ("", f"runs/{run}/", "results/", "results/sample/?page=100"):
        begun = time.perf_counter()
        with urllib.request.urlopen(f"{server.url}{page}") as answer:
            answer.read()
        took[f"serve /{page}"] = time.perf_counter() - begun
        sys.stdout.write(f"serve /{page}: {took[f'serve /{page}']:.2f} s\n")
    server.stop()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.big_store", description=__doc__)
    parser.add_argument("--store", default="", help="an empty place for the store (default: a temporary folder)")
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--results", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(options.store or f"{folder}/store")
        begun = time.perf_counter()
        run = fill(store, options.runs, options.results)
        sys.stdout.write(f"filled in {time.perf_counter() - begun:.0f} s\n")
        sys.stdout.flush()
        took = measure(store, run)
    sys.stdout.write(json.dumps({"runs": options.runs, "results": options.results, "seconds": took}) + "\n")


if __name__ == "__main__":
    main()
