"""A new stage needs four files: in a copy of the code that has one more, it runs, compiles for Kubeflow and shows in the report."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
ADDED = {  # what is added to the end of each file, new ones included
    "edm2core/plan/stages.py": """
STAGES["toy"] = Stage("toy", "Count the bytes of a snapshot.", words="counting bytes", imports_torch=False)
""",
    "edm2core/plan/tasks.py": """
_others = tasks_of


def tasks_of(experiment, digests):
    tasks = _others(experiment, digests)
    trained = [task for task in tasks if task.stage == "snapshot"]
    return [*tasks, *(_task("toy", {}, {"snapshot": task.ref}, task.title.replace("train", "toy"), task.subject) for task in trained)]
""",
    "edm2core/stages/toy.py": """
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    size = sum(file.size for file in work.inputs["snapshot"].manifest.files.values())
    (work.out / "toy.txt").write_text(str(size))
    work.metadata |= {"bytes": size}


if __name__ == "__main__":
    main("toy", run)
""",
    "components/toy/__init__.py": """
from components.kubeflow_task import stage_component

component = stage_component("toy")
""",
}
EXPERIMENT = {
    "name": "tiny",
    "recipes": ["digits/G"],
    "epochs": [1],
    "metrics": [],
    "probe": False,
    "overrides": {"network.multipliers": [1], "network.attention_resolutions": [], "training.batch": 256},
}


class Copy:
    """A copy of the code with the toy stage, an experiment, and `edm2` of that copy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.code = folder, folder / "code"
        for package in ("edm2core", "components", "pipelines", "k8s", "experiments"):
            shutil.copytree(REPOSITORY / package, self.code / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in ADDED.items():
            file = self.code / name
            file.parent.mkdir(exist_ok=True)
            with file.open("a") as end:
                end.write(text)
        (folder / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))

    def edm2(self, *arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "pipelines.cli.main", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.code), "EDM2_CACHE": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("toy"))


@pytest.mark.slow
def test_a_stage_is_four_files_and_runs_with_a_manifest_of_its_own_science(copy: Copy) -> None:
    assert len(ADDED) <= 4
    copy.edm2("run", "e.yaml", "--store", "store")
    (file,) = copy.folder.glob("store/results/toy/*/manifest.json")
    manifest = json.loads(file.read_text())
    assert manifest["metadata"]["bytes"] > 0
    assert manifest["provenance"]["science"]
    (page,) = copy.folder.glob("store/runs/*/report.html")
    page.unlink()
    copy.edm2("report", str(page.parent.relative_to(copy.folder)))
    assert "counting bytes" in page.read_text()


def test_a_stage_compiles_with_the_artifact_that_its_table_names(copy: Copy) -> None:
    copy.edm2("compile", "e.yaml", "--store", "store", "--out", "package.yaml")
    (spec, *_) = yaml.safe_load_all((copy.folder / "package.yaml").read_text())
    toy = spec["components"]["comp-toy"]
    assert set(toy["outputDefinitions"]["artifacts"]) == {"toy"}
    assert set(toy["inputDefinitions"]["artifacts"]) == {"snapshot"}
    assert spec["deploymentSpec"]["executors"]["exec-toy"]["container"]["command"][-1] == "toy"
