"""The first and the last task of Kubeflow's run, on a local store."""

import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from components.kubeflow import Artifact, perform
from components.launcher.cluster import ApiServer, Cluster
from components.launcher.job_kinds import kind_of
from components.launcher.profile import Profile, load_profile
from components.record.component import component as begin
from components.record.plan_parameter import Packed, grouped, named, put, read, recorded
from components.report import write as writing
from components.report.component import component as finish
from components.report.write import write_report
from edm2core.errors import InputError, IntegrityError
from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store import Store, open_store
from edm2core.store.runs import Run, load_plan


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Experiment, list[Task], Store]:
    (tmp_path / "e.yaml").write_text(
        "name: x\nrecipes: [digits/C, digits/E]\nepochs: [1, 2]\nmetrics: []\nprobe: false\nsample: {count: 64}\n"
    )
    experiment = load_experiment(tmp_path / "e.yaml")
    tasks = plan(experiment, {"data:digits/C": "builtin:digits", "data:digits/E": "builtin:digits"})
    return experiment, tasks, open_store(str(tmp_path / "store"))


def outputs(folder: Path) -> tuple[Artifact, Artifact]:
    return Artifact("page", str(folder / "page")), Artifact("numbers", str(folder / "numbers"))


def done(store: Store, tasks: list[Task]) -> None:
    for task in tasks:
        made = Manifest(task.stage, task.version, task.key, task.title, task.settings, task.inputs, {}, "a", {}, {}, {})
        store.write(task.ref.manifest, made.dumps())


def test_the_first_task_says_what_is_missing_of_which_trajectory(asked: Any, tmp_path: Path) -> None:
    experiment, tasks, store = asked
    packed = Packed.of(experiment.name, experiment.text, tasks, {}).dumps()
    groups = grouped(tasks)
    assert list(groups) == ["", "C · seed 0", "E · seed 0"]
    done(store, [*groups[""], *groups["C · seed 0"]])
    overview, counts = outputs(tmp_path)
    found = begin(packed, "x-1", store.uri, "", overview, counts)
    assert {name: found[name] for name in ("Output", "t0", "t1")} == {"Output": "missing", "t0": "done", "t1": "missing"}
    assert counts.metadata == {"tasks done": len(groups[""]) + len(groups["C · seed 0"]), "tasks to do": len(groups["E · seed 0"])}
    assert "E · seed 0 · train to epoch 2" in Path(overview.path).read_text()
    assert load_plan(store, "x-1") == ("x", tasks)
    plan_there = read(found["plan"])
    assert (plan_there.run, plan_there.store, plan_there.plan) == ("x-1", store.uri, tasks)
    for of, group in groups.items():
        for ref, name in named(tasks, group).items():
            assert plan_there.task(of, name).ref == ref


def test_where_nothing_is_missing_the_first_task_writes_the_report(asked: Any, tmp_path: Path) -> None:
    experiment, tasks, store = asked
    done(store, tasks)
    overview, counts = outputs(tmp_path)
    found = begin(Packed.of(experiment.name, experiment.text, tasks, {}).dumps(), "x-1", store.uri, "", overview, counts)
    assert set(found.values()) == {"done", found["plan"]}
    assert Path(overview.path).read_bytes() == store.read("runs/x-1/report.html")


def test_a_plan_that_is_not_what_its_address_says_is_refused(asked: Any) -> None:
    experiment, tasks, store = asked
    address = put(store, Packed.of(experiment.name, experiment.text, tasks, {}), "x-1", "")
    path = address.removeprefix(f"{store.uri}/")
    store.write(path, store.read(path).replace(b"epoch", b"epocH"))
    with pytest.raises(IntegrityError, match="recorded plan is damaged"):
        read(address)
    assert recorded(store, "x-1") == []


def test_each_part_of_a_run_reports_on_the_whole(asked: Any, tmp_path: Path) -> None:
    experiment, tasks, store = asked
    groups = grouped(tasks)
    for number, who in enumerate(("C · seed 0", "E · seed 0"), 1):
        part = Packed.of(experiment.name, experiment.text, [*groups[""], *groups[who]], {}, f"{number} of 2")
        begin(part.dumps(), "x-1", store.uri, "", *outputs(tmp_path))
    finish("x-1", store.uri, "", "1 of 2", *outputs(tmp_path))
    assert {task.ref for task in load_plan(store, "x-1")[1]} == {task.ref for task in tasks}
    results = json.loads(store.read("runs/x-1/results.json"))
    assert {entry["task"] for entry in results["run"]["tasks"]} == {str(task.ref) for task in tasks}


def test_of_reports_written_at_once_the_most_complete_stands(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, tasks, store = asked
    run = Run("x-1", store)
    begin_packed = Packed.of(experiment.name, experiment.text, tasks, {})
    put(store, begin_packed, run.id, "")
    store.write("runs/x-1/experiment.yaml", experiment.text.encode())
    commit, late = writing._commit, [True]

    def another_first(run: Run, report: Any) -> None:
        """Between what this one has read and what it writes, another run ends that has seen more."""
        if late.pop() if late else False:
            done(store, tasks)
            write_report(run, "x", tasks, {}, "")
        commit(run, report)

    monkeypatch.setattr(writing, "_commit", another_first)
    write_report(run, "x", tasks, {}, "")
    states = {entry["state"] for entry in json.loads(store.read("runs/x-1/results.json"))["run"]["tasks"]}
    assert states == {"done"}


def test_a_command_imports_no_kfp(asked: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    experiment, tasks, store = asked
    packed = Packed.of(experiment.name, experiment.text, tasks, {}).dumps()
    given = {"inputs": {"parameterValues": {"run": "x-1", "store": store.uri, "profile": ""}}}
    artifacts = {name: {"artifacts": [{"name": name, "uri": str(tmp_path / "out" / name)}]} for name in ("overview", "counts")}
    asked_for = {**given, "outputs": {"artifacts": artifacts, "outputFile": str(tmp_path / "out/metadata.json")}}
    program = f"import sys; from components.kubeflow import perform; perform('record', {json.dumps(asked_for)!r}, {f'packed={packed}'!r}); "
    program += "print([name for name in sys.modules if name.split('.')[0] in ('kfp', 'kubernetes', 'torch')])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
    written = json.loads((tmp_path / "out/metadata.json").read_text())
    assert written["parameterValues"]["Output"] == "missing"
    assert written["artifacts"]["counts"]["artifacts"][0]["metadata"]["tasks done"] == 0


def test_an_artifact_lies_where_kubeflows_launcher_takes_it_from() -> None:
    assert Artifact("data", "minio://mlpipeline/v2/artifacts/x/data").path == "/minio/mlpipeline/v2/artifacts/x/data"
    assert Artifact("data", "/tmp/x/data").path == "/tmp/x/data"
    assert callable(perform)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Cluster(ApiServer(client.Configuration(host="http://nowhere")), "team", kind_of(None), "Jobs are PyTorchJobs."),
            "Jobs are PyTorchJobs.",
        ),
        (InputError("There is no way to a cluster."), "could not be found out. There is no way to a cluster."),
    ],
)
def test_the_first_task_says_which_kind_of_job_the_cluster_has(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any, words: str
) -> None:
    experiment, tasks, store = asked
    packed, (overview, counts) = Packed.of(experiment.name, experiment.text, tasks, {}).dumps(), outputs(tmp_path)

    def connect(_: Profile) -> Cluster:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Cluster, "connect", connect)
    begin(packed, "x-1", store.uri, load_profile("lab").dumps(), overview, counts)
    assert words in capsys.readouterr().out
