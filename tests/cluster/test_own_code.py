"""An experiment whose every hook is its user's own code, in real pods: they get the code from the store, and results are those of here."""

import json
import re
from pathlib import Path

import pytest

from components.launcher.job import prerequisites
from components.launcher.log_store import log_folder, read_record
from edm2core.own_code.source import content_digest
from edm2core.plan.tasks import Task
from edm2core.store import Store, open_store
from edm2core.store.runs import list_runs, load_plan
from tests.cluster.lab import Lab
from tests.cluster.test_experiment import edm2
from tests.test_documents import REPOSITORY, write_files

pytestmark = pytest.mark.cluster
PAGE = REPOSITORY / "docs" / "how-to" / "own-code.md"
EXPERIMENT = """
name: own
recipes: [mine.yaml]
epochs: [1]
overrides: {data.count: 400, network.depth: 1, network.width: 32, training.batch: 128}
metrics: [my_metrics:colour_histogram]
sample: {count: 80, steps: 3, solver: my_solvers:euler_ancestral, eta: 0.5}
probe: false
diagnostics: true
exact: true
"""
# Each module says where it is imported, and whether it can connect to the API server, which no pod of a job may.
TELLING = """
import os, socket
try:
    socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])), 2).close()
    reached = "reaches the API server"
except (KeyError, OSError):
    reached = "reaches nothing else"
print(f"{__name__} is imported on {socket.gethostname()}, which {reached}", flush=True)
"""
USED_BY = {
    "prepare": {"my_data"},
    "snapshot": {"my_nets", "my_loss", "my_lr", "my_opt"},
    "sample": {"my_nets", "my_solvers"},
    "metrics": {"my_metrics"},
    "diagnostics": {"my_nets", "my_loss"},
}


def test_every_hook_runs_in_pods_and_gives_the_results_of_here(lab: Lab, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    for module in tmp_path.glob("my_*.py"):
        module.write_text(module.read_text(encoding="utf-8") + TELLING, encoding="utf-8")
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    profile = lab.profile(store={"uri": "s3://edm2/own-code"}, patience_s=300, resources={"snapshot": {"nodes": 1}})
    lab.apply(*prerequisites(profile))
    (tmp_path / "cluster.yaml").write_text(profile.dumps())
    printed = edm2("run", "experiment.yaml", "--cluster", "cluster.yaml", folder=tmp_path)
    assert "is imported on" not in printed
    edm2("run", "experiment.yaml", "--store", "here", folder=tmp_path)
    there, here = open_store(profile.store.uri), open_store(str(tmp_path / "here"))
    (run,) = list_runs(there)
    tasks = load_plan(there, run)[1]
    assert {task.stage for task in tasks} == USED_BY.keys()
    contents = {package: content for task in tasks for package, content in task.code.items()}
    assert contents.keys() == set.union(*USED_BY.values())
    for package, content in contents.items():
        assert there.stat(f"sources/{content_digest(content).partition(':')[2]}.tar"), package
    for task in tasks:
        assert digests(there, task) == digests(here, task), task.title
        assert imported_by(there, run, task) == USED_BY[task.stage], task.title


def digests(store: Store, task: Task) -> dict[str, str]:
    """The SHA-256 of each of a result's files but its curve, which has times."""
    files = json.loads(store.read(f"results/{task.stage}/{task.key}/manifest.json"))["files"]
    return {name: sha256 for name, (_, sha256) in files.items() if name != "curve.jsonl"}


def imported_by(store: Store, run: str, task: Task) -> set[str]:
    """The modules that a task's pods imported, none of which could reach what is not theirs."""
    lines = [line.text for line in read_record(store, log_folder(run, task))]
    assert not [line for line in lines if "reaches the API server" in line]
    return {found[1] for line in lines if (found := re.search(r"(my_\w+) is imported on \S+", line))}
