"""A component's body against a small server that answers as the API server does for pods and PyTorchJobs."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from components.execute import TaskFailedError
from components.kubeflow import Artifact
from components.kubeflow_task import _place, work, workflow_of
from components.launcher.cluster import ApiServer, Cluster
from components.launcher.job_kinds.pytorchjob import PyTorchJob
from components.launcher.profile import Profile
from components.record.plan_parameter import Packed, put, wisher
from components.report.component import component as finish
from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.store import Store, open_store
from edm2core.store.runs import Run, open_run
from edm2core.store.wanted_epochs import want
from pipelines.cli.cancel import take_back

WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "some-x7k2p", "uid": "w-1"}
PROFILE = {
    "name": "far",
    "namespace": "team",
    "store": {"uri": "s3://bucket/edm2"},
    "images": {"compute": "registry/compute", "control": "registry/control"},
}


class FakeCluster(ThreadingHTTPServer):
    """Pods to be read, and the PyTorchJobs that were created."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pods: dict[str, dict[str, Any]] = {}
        self.jobs: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.forbidden = False
        self.there: dict[str, Any] | None = None  # a job that somebody else has started
        self.patches: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeCluster

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        kind, name = self.path.split("/")[-2:]
        if kind == "pods" and self.server.forbidden:
            return self._answer(403, {"message": f'pods "{name}" is forbidden: User "u" cannot get resource "pods"'})
        pod = self.server.pods.get(name) if kind == "pods" else self.server.there if kind == "pytorchjobs" else None
        return self._answer(200 if pod else 404, pod or {"message": f'{kind} "{name}" not found'})

    def do_POST(self) -> None:
        self.server.jobs.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(201, self.server.jobs[-1])

    def do_PATCH(self) -> None:
        self.server.patches.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(200, self.server.there or {})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    server = FakeCluster()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The fake one, and this process in its pod `launcher`."""
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{fake.server_port}"
    cluster = Cluster(ApiServer(configuration), "team", PyTorchJob())
    monkeypatch.setattr(Cluster, "connect", lambda profile: cluster)
    monkeypatch.setenv("KFP_POD_NAME", "launcher")
    monkeypatch.setenv("KFP_POD_UID", "p-1")
    return cluster


def pod(*owners: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "launcher", "uid": "p-1", "ownerReferences": list(owners)}}


def test_the_workflow_is_named_without_claiming_to_control_the_job(fake: FakeCluster, cluster: Cluster) -> None:
    fake.pods["launcher"] = pod({**WORKFLOW, "controller": True, "blockOwnerDeletion": True})
    assert workflow_of(cluster) == (WORKFLOW, "")
    assert fake.requests == ["/api/v1/namespaces/team/pods/launcher"]


def test_without_kubeflows_variables_the_pods_name_is_its_host_name(
    fake: FakeCluster, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KFP_POD_NAME")
    monkeypatch.delenv("KFP_POD_UID")
    monkeypatch.setenv("HOSTNAME", "launcher")
    fake.pods["launcher"] = pod(WORKFLOW)
    assert workflow_of(cluster)[0] == WORKFLOW
    monkeypatch.delenv("HOSTNAME")
    assert workflow_of(cluster) == (None, "this pod's name is unknown")


@pytest.mark.parametrize(
    ("pods", "why"),
    [
        ({}, "this pod is not in namespace team"),
        (
            {"launcher": {"metadata": {**pod(WORKFLOW)["metadata"], "uid": "another"}}},
            "this pod is not in namespace team",
        ),
        ({"launcher": {"metadata": {"name": "launcher", "uid": "p-1"}}}, "this pod belongs to no Workflow"),
        ({"launcher": pod({**WORKFLOW, "apiVersion": "apps/v1", "kind": "ReplicaSet"})}, "this pod belongs to no Workflow"),
    ],
    ids=["not there", "another of that name", "nobody's", "somebody else's"],
)
def test_a_job_belongs_to_nobody_where_no_workflow_is_found(fake: FakeCluster, cluster: Cluster, pods: dict[str, Any], why: str) -> None:
    fake.pods = pods
    assert workflow_of(cluster) == (None, why)


def test_a_pod_that_may_not_be_read_stops_nothing(fake: FakeCluster, cluster: Cluster) -> None:
    fake.forbidden = True
    owner, why = workflow_of(cluster)
    assert owner is None
    assert "this pod cannot be read: Forbidden" in why


def planned(tmp_path: Path, store: Store) -> tuple[Run, Experiment, list[Task]]:
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [digits/C]\nepochs: [1, 2]\nmetrics: []\nprobe: false\n")
    read = load_experiment(tmp_path / "e.yaml")
    tasks = plan(read, {"data:digits/C": "builtin:digits"})
    return open_run(store, read, tasks, {}), read, tasks


@pytest.mark.parametrize("owners", [(WORKFLOW,), ()], ids=["the Workflow's", "nobody's"])
def test_a_kubeflow_tasks_job_is_created_with_its_owner_and_for_its_run(
    fake: FakeCluster, cluster: Cluster, tmp_path: Path, owners: tuple[dict[str, Any], ...]
) -> None:
    record, _, tasks = planned(tmp_path, open_store(str(tmp_path / "store")))
    fake.pods["launcher"] = pod(*owners)
    said: list[str] = []
    backend, task, spec = _place(tasks[1], "s3://bucket/edm2", record, Profile.model_validate(PROFILE), said.append)
    backend.start(spec)
    [job] = fake.jobs
    assert job["metadata"].get("ownerReferences", []) == list(owners)
    assert job["metadata"]["labels"][f"run.edm2/{record.id}"] == "yes"
    assert task.wanted == (1, 2)
    assert said == ["jobs belong to " + ("the Workflow some-x7k2p" if owners else "nobody, since this pod belongs to no Workflow")]


def test_an_adopted_job_belongs_to_this_runs_workflow_too(fake: FakeCluster, cluster: Cluster, tmp_path: Path) -> None:
    """Else the first run's Workflow, which is deleted after an hour, would take the job along under the second."""
    record, _, tasks = planned(tmp_path, open_store(str(tmp_path / "store")))
    other = {**WORKFLOW, "name": "other-a1b2c", "uid": "w-0"}
    for owners in ([], [other], [other, WORKFLOW]):
        fake.pods["launcher"] = pod(WORKFLOW)
        backend, _, spec = _place(tasks[1], "s3://bucket/edm2", record, Profile.model_validate(PROFILE), lambda _: None)
        fake.there = {"metadata": {"name": spec.name, "labels": {}, "ownerReferences": owners}, "spec": {"runPolicy": {}}, "status": {}}
        fake.patches.clear()
        backend.start(spec)
        changed = fake.patches[0]["metadata"].get("ownerReferences", owners)
        assert changed == [*(owner for owner in owners if owner != WORKFLOW), WORKFLOW]
    assert fake.jobs == []


def outputs(folder: Path) -> tuple[Artifact, Artifact]:
    return Artifact("page", str(folder / "page")), Artifact("latest", str(folder / "latest"))


@pytest.fixture
def wishes(tmp_path: Path) -> tuple[Store, Run, list[Task], Callable[[], dict[str, list[int]]]]:
    """A run, which `edm2 run` is at work on, and what is wanted of its training by whom."""
    store = open_store(str(tmp_path / "store"))
    record, _, tasks = planned(tmp_path, store)
    trajectory = trajectory_ref(tasks[1])
    want(store, trajectory, record.id, (1, 2))

    def found() -> dict[str, list[int]]:
        entries = store.list(f"{trajectory.scratch}/wanted/")
        return {Path(entry.path).stem: json.loads(store.read(entry.path))["epochs"] for entry in entries}

    return store, record, tasks, found


def test_a_kubeflow_task_adds_its_wish_to_that_of_edm2_run(wishes: Any, tmp_path: Path) -> None:
    store, record, tasks, found = wishes
    plan = put(store, Packed.of("x", "", tasks, {}), record.id, "")
    with pytest.raises(SystemExit, match="its input 'data' is not in the store"):  # fails at once: its data were never prepared
        work("ep 1 · train", "C · seed 0", plan, Artifact("snapshot", str(tmp_path / "artifact")))
    assert found() == {record.id: [1, 2], wisher(record.id): [1]}  # in its own pod it trains to its own epoch only


def test_the_end_of_kubeflows_run_leaves_the_wish_of_edm2_run(wishes: Any, tmp_path: Path) -> None:
    store, record, tasks, found = wishes
    want(store, trajectory_ref(tasks[1]), wisher(record.id), (1, 2))
    put(store, Packed.of("x", "", tasks, {}), record.id, "")
    finish(record.id, store.uri, "", "", *outputs(tmp_path))
    assert found() == {record.id: [1, 2]}


def test_a_cancelled_run_of_kubeflows_wants_nothing_more(wishes: Any) -> None:
    store, record, tasks, found = wishes
    want(store, trajectory_ref(tasks[1]), wisher(record.id), (1, 2))
    take_back(store, record.id)
    take_back(store, "never-recorded")
    assert found() == {record.id: [1, 2]}


@pytest.mark.parametrize(("lines", "ends"), [([], "do something"), (["one", "two"], "Last lines:\none\ntwo")])
def test_a_failed_task_ends_with_its_last_lines_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str], ends: str
) -> None:
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: []\nprobe: false\n")
    task = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})[0]

    def fails(*_: object) -> None:
        raise TaskFailedError(task, "gone.", "do something", lines)

    monkeypatch.setattr("components.kubeflow_task._work", fails)
    plan_file = put(open_store(str(tmp_path / "store")), Packed.of("x", "", [task], {}), "run", "")
    with pytest.raises(SystemExit) as caught:
        work(task.title, "", plan_file, Artifact("data", str(tmp_path / "data")))
    assert str(caught.value).endswith(ends)
    assert str(caught.value).count("Last lines") == bool(lines)
