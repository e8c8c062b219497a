import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kubernetes import client

from components.launcher.cluster import ApiServer, Cluster
from components.launcher.followers import suspend_unfollowed
from components.launcher.job import run_label
from components.launcher.job_kinds.pytorchjob import PyTorchJob
from components.launcher.profile import Profile
from components.launcher.spec import job_name
from edm2core.plan.experiment import load_experiment
from edm2core.plan.tasks import trajectory_ref
from edm2core.store.local import LocalStore
from edm2core.store.scratch import Scratch
from pipelines.cli.cancel import saved_states, stop_jobs
from pipelines.inputs.user_files import planned

PROFILE = {
    "name": "far",
    "namespace": "team",
    "store": {"uri": "s3://bucket/edm2"},
    "images": {"compute": "registry/compute", "control": "registry/control"},
    "grace_s": 5,
}


class FakeCluster(ThreadingHTTPServer):
    """PyTorchJobs in memory; a job's pod is gone at the second look after it was stopped."""

    def __init__(self, *jobs: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs = {job["metadata"]["name"]: job for job in jobs}
        self.requests: list[tuple[str, str]] = []
        self.looks = 0


class _Handler(BaseHTTPRequestHandler):
    server: FakeCluster

    def _serve(self) -> None:
        url = urlsplit(self.path)
        name = url.path.rsplit("/", 1)[1]
        fake = self.server
        fake.requests.append((self.command, name))
        if url.path.endswith("/pods"):
            fake.looks += 1
            return self._answer({"items": [] if fake.looks > 1 else [{"metadata": {"name": "pod"}}]})
        if self.command == "GET":
            wanted = parse_qs(url.query)["labelSelector"][0].split(",")
            jobs = fake.jobs.values()
            return self._answer({"items": [j for j in jobs if set(wanted) <= {f"{k}={v}" for k, v in j["metadata"]["labels"].items()}]})
        if self.command == "DELETE":
            return self._answer(fake.jobs.pop(name))
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        job = fake.jobs[name]
        for label, value in change.get("metadata", {}).get("labels", {}).items():
            job["metadata"]["labels"].pop(label) if value is None else job["metadata"]["labels"].update({label: value})
        job["spec"]["runPolicy"].update(change.get("spec", {}).get("runPolicy", {}))
        self._answer(job)

    do_GET = do_PATCH = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def job(name: str, *runs: str, **policy: Any) -> dict[str, Any]:
    own = {"app.kubernetes.io/name": "edm2", "app.kubernetes.io/component": "job"}
    labels = {**own, **{run_label(run): "yes" for run in runs}}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"runPolicy": policy}, "status": {}}


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    server = FakeCluster(
        job("edm2-trajectory-a", "mine-1"), job("edm2-trajectory-b", "mine-1", "other-2"), job("edm2-probe-c", "other-2"), job("edm2-d")
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(fake: FakeCluster) -> Cluster:
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{fake.server_port}"
    return Cluster(ApiServer(configuration), "team", PyTorchJob())


def test_a_runs_jobs_are_suspended_unless_another_run_wants_them(fake: FakeCluster, cluster: Cluster) -> None:
    said: list[str] = []
    assert stop_jobs(cluster, Profile.model_validate(PROFILE), "mine-1", said.append) == ["edm2-trajectory-a"]
    suspended = {name for name, job in fake.jobs.items() if job["spec"]["runPolicy"].get("suspend")}
    assert suspended == {"edm2-trajectory-a"}
    assert run_label("mine-1") not in fake.jobs["edm2-trajectory-b"]["metadata"]["labels"]
    assert said == ["edm2-trajectory-a is stopping", "edm2-trajectory-b goes on for other-2"]
    assert fake.looks == 2  # it waited for the pod's end


def test_a_job_that_its_task_has_suspended_already_is_waited_for_and_told_of(fake: FakeCluster, cluster: Cluster) -> None:
    fake.jobs["edm2-trajectory-a"]["spec"]["runPolicy"]["suspend"] = True
    fake.jobs["edm2-probe-a"] = job("edm2-probe-a", "mine-1", suspend=True)
    fake.jobs["edm2-probe-a"]["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    said: list[str] = []
    assert stop_jobs(cluster, Profile.model_validate(PROFILE), "mine-1", said.append) == ["edm2-trajectory-a"]
    assert "edm2-trajectory-a is suspended" in said
    assert ("PATCH", "edm2-trajectory-a") not in fake.requests
    assert fake.looks == 2


def test_the_end_of_a_run_suspends_its_jobs_that_nobody_follows(
    fake: FakeCluster, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a terminate between two trainings, when nobody had to be told."""
    monkeypatch.setattr("components.launcher.followers.SILENT_S", 0.3)
    monkeypatch.setattr("components.launcher.followers.LOOK_S", 0.05)
    fake.jobs |= {name: job(name, "mine-1") for name in ("edm2-left", "edm2-dead", "edm2-live", "edm2-of-another-part")}
    fake.jobs["edm2-dead"]["metadata"]["annotations"] = {"follower.edm2/a": "2026-01-01T00:00:00Z"}
    fake.jobs["edm2-live"]["metadata"]["annotations"] = {"follower.edm2/b": "2026-01-01T00:00:00Z"}
    beat = threading.Timer(0.15, lambda: fake.jobs["edm2-live"]["metadata"].update(annotations={"follower.edm2/b": "2026-01-01T00:00:15Z"}))
    beat.start()
    profile = Profile.model_validate(PROFILE)
    names = ["edm2-left", "edm2-dead", "edm2-live", "edm2-trajectory-b"]
    stopped = suspend_unfollowed(cluster, profile, "mine-1", names, lambda _: None)
    beat.join()
    assert sorted(stopped) == ["edm2-dead", "edm2-left"]
    assert {name for name, job in fake.jobs.items() if job["spec"]["runPolicy"].get("suspend")} == set(stopped)


def test_a_job_in_a_queue_is_deleted_since_suspending_is_the_queues(fake: FakeCluster, cluster: Cluster) -> None:
    stop_jobs(cluster, Profile.model_validate({**PROFILE, "queue": "gpus"}), "mine-1", lambda _: None)
    assert "edm2-trajectory-a" not in fake.jobs


def test_what_state_a_stopped_training_has_saved_is_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump({"name": "two", "recipes": ["digits/C", "digits/E"], "epochs": [1], "metrics": ["fd"]}))
    plan = planned(load_experiment(file))
    first, second = (task for task in plan if task.stage == "snapshot")
    Scratch(store, trajectory_ref(first).scratch, 1).put("state-1", b"weights")
    ages = saved_states(store, plan, [job_name(task, store.uri) for task in plan])
    assert ages.pop(job_name(second, store.uri)) is None
    [(name, age)] = ages.items()
    assert name == job_name(first, store.uri)
    assert age is not None
    assert age < 60
