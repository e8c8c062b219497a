"""Against a small server that speaks the few calls of Kubeflow's API as version 2.17 specifies them: untested on a real one."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp
import pytest
import torch
import yaml
from click.testing import CliRunner

from components.launcher.cluster import Cluster
from components.launcher.profile import Profile
from components.record.plan_parameter import Packed
from edm2core.errors import EdmError, InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.registry import WEIGHT_FILES
from edm2core.store import open_store
from edm2core.store.runs import Run, find_run, open_run
from pipelines.cli.logs import command as logs
from pipelines.cli.status import command as status
from pipelines.cli.submit import command as submit
from pipelines.kubeflow.submit import Kubeflow, Submitted, must_find

API = "/apis/v2beta1"


class FakeKubeflow(ThreadingHTTPServer):
    """Experiments and runs in memory."""

    def __init__(self, multi_user: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.multi_user = multi_user
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.states: list[str] = []  # of the latest run, from look to look; the last one stays
        self.refusal = ""
        self.uploaded: dict[str, Any] = {}
        self.headers: list[dict[str, str]] = []  # of each request

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeKubeflow

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.server.headers.append(dict(self.headers.items()))
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        kind = url.path.removeprefix(f"{API}/").split("/")[0].split(":")[0]
        fake = self.server
        if fake.refusal and kind != "healthz":
            return self._answer(403, {"error": fake.refusal, "code": 7})
        namespace = query.get("namespace") or body.get("namespace")
        if kind in ("experiments", "runs") and namespace and not fake.multi_user:
            return self._answer(400, {"error": "In single-user mode, the request should not contain a namespace", "code": 3})
        if kind == "experiments" and fake.multi_user and not namespace:
            return self._answer(400, {"error": "In multi-user mode, the request must have a namespace", "code": 3})
        if kind == "pipelines":
            return self._answer(200, {"pipeline_version_id": "v", "pipeline_spec": fake.uploaded})
        if kind == "healthz":
            return self._answer(200, {"multi_user": fake.multi_user})
        if kind == "experiments":
            if self.command == "POST":
                return self._post(fake.experiments, "experiment_id", body)
            return self._list(fake.experiments, kind, query)
        if self.command == "POST" and url.path.endswith(":terminate"):
            fake.states = ["CANCELING", "CANCELED"]
            return self._answer(200, {})
        if self.command == "POST":
            return self._post(fake.runs, "run_id", {**body, "state": "PENDING"})
        if url.path == f"{API}/runs":
            return self._list(fake.runs, kind, query)
        run = next(run for run in fake.runs if url.path.endswith(run["run_id"]))
        if fake.states:
            run["state"] = fake.states.pop(0) if len(fake.states) > 1 else fake.states[0]
        return self._answer(200, run)

    def _post(self, things: list[dict[str, Any]], id: str, body: dict[str, Any]) -> None:
        things.append({**body, id: f"{id}-{len(things)}"})
        self._answer(200, things[-1])

    def _list(self, things: list[dict[str, Any]], kind: str, query: dict[str, str]) -> None:
        predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
        names = [predicate["stringValue"] for predicate in predicates if predicate["key"] == "display_name"]
        found = [thing for thing in things if not names or thing["display_name"] in names]
        if query.get("sort_by") == "created_at desc":
            found = found[::-1]
        start, size = int(query.get("page_token") or 0), int(query.get("page_size", 10))
        more = {"next_page_token": str(start + size)} if start + size < len(found) else {}
        self._answer(200, {kind: found[start : start + size], **more})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(params=[False, True], ids=["one user", "many users"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKubeflow]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the client reads and writes a file there
    server = FakeKubeflow(multi_user=request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def values(fake: FakeKubeflow) -> dict[str, Any]:
    return {
        "namespace": "team",
        "store": {"uri": "s3://bucket/edm2"},
        "images": {"compute": "registry/compute", "control": "registry/control"},
        "kfp": {"host": fake.host, "namespace": "pipelines"},
    }


@pytest.fixture
def kubeflow(fake: FakeKubeflow) -> Kubeflow:
    return Kubeflow(Profile.model_validate({"name": "far", **values(fake)}))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    file = tmp_path / "package.yaml"
    file.write_text(yaml.safe_dump({"pipelineInfo": {"name": "some"}, "schemaVersion": "2.1.0"}))
    return file


def test_a_run_is_submitted_under_the_profiles_account_and_found_by_its_name(fake: FakeKubeflow, kubeflow: Kubeflow, package: Path) -> None:
    first, second = (kubeflow.submit(package, "some", "some-abc123") for _ in range(2))
    assert first.id != second.id
    assert kubeflow.runs("some-abc123") == [second, first]
    assert second == Submitted("run_id-1", "some-abc123", "PENDING", "")
    assert [experiment["display_name"] for experiment in fake.experiments] == ["some"]
    assert fake.runs[0]["service_account"] == "edm2-control"
    assert fake.runs[0]["pipeline_spec"]["pipelineInfo"] == {"name": "some"}
    assert kubeflow.runs("other-abc123") == []
    with pytest.raises(InputError, match="knows no run other-abc123"):
        must_find(kubeflow, "other-abc123")


def test_waiting_ends_with_a_cancelled_run_too(fake: FakeKubeflow, kubeflow: Kubeflow, package: Path) -> None:
    run = kubeflow.submit(package, "some", "some-abc123")
    fake.states = ["RUNNING", "RUNNING"]
    said: list[str] = []

    def changed(now: Submitted) -> None:
        said.append(now.state)
        if now.state == "RUNNING":
            kubeflow.terminate(now.id)

    assert kubeflow.wait(run.id, changed, poll_s=0.01).state == "CANCELED"
    assert said == ["RUNNING", "CANCELING", "CANCELED"]


def test_a_refusal_is_said_in_the_servers_words(fake: FakeKubeflow, kubeflow: Kubeflow, package: Path) -> None:
    fake.refusal = "User 'x' is not authorized with reason: none"
    with pytest.raises(EdmError, match="User 'x' is not authorized") as refused:
        kubeflow.runs("some-abc123")
    assert fake.host in refused.value.where


def test_an_api_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    server = FakeKubeflow()
    server.server_close()
    with pytest.raises(EdmError, match="cannot be reached") as gone:
        Kubeflow(Profile.model_validate({"name": "far", **values(server)}))
    assert server.host in gone.value.where
    assert "port-forward" in gone.value.do_next


def test_submit_compiles_starts_and_waits(fake: FakeKubeflow, tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(values(fake)))
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"name": "some", "recipes": ["digits/C"], "epochs": [1], "metrics": ["fd"]}))
    fake.states = ["SUCCEEDED"]
    arguments = [str(tmp_path / "some.yaml"), "--cluster", str(tmp_path / "far.yaml"), "--wait"]
    done = CliRunner().invoke(submit, arguments, catch_exceptions=False)
    assert done.output.splitlines()[-1] == "succeeded"
    assert f"{fake.host}/#/runs/details/run_id-0" in done.output
    [run] = fake.runs
    assert run["display_name"] in done.output
    assert "exit-handler-1" in run["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert "securityContext" in json.dumps(run["pipeline_spec"]["platform_spec"])
    fake.states = ["FAILED"]
    failed = CliRunner().invoke(submit, arguments)
    assert isinstance(failed.exception, EdmError)
    assert "has ended as failed" in failed.exception.what


def test_submit_uploads_what_the_user_brings_before_it_starts_anything(
    fake: FakeKubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(dict.fromkeys(WEIGHT_FILES["inception"].names, torch.zeros(1)), tmp_path / "weights.pth")
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(values(fake)))
    some = {"name": "some", "recipes": ["digits/C"], "epochs": [1], "metrics": ["is"], "inception_weights": "weights.pth"}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(some))
    monkeypatch.setenv("EDM2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pipelines.cli.submit.open_store", lambda uri: open_store(str(tmp_path / "store")))
    arguments = [str(tmp_path / "some.yaml"), "--cluster", str(tmp_path / "far.yaml")]
    first = CliRunner().invoke(submit, arguments, catch_exceptions=False).output
    [stored] = open_store(str(tmp_path / "store")).list("sources/")
    assert stored.path == f"sources/{hashlib.sha256((tmp_path / 'weights.pth').read_bytes()).hexdigest()}"
    again = CliRunner().invoke(submit, arguments, catch_exceptions=False).output
    assert ("uploading" in first, "uploading" in again) == (True, False)
    assert len(fake.runs) == 2


def test_status_says_how_kubeflow_sees_the_run(fake: FakeKubeflow, tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(values(fake)))
    asked = CliRunner().invoke(status, ["some-abc123", "--cluster", str(tmp_path / "far.yaml")])
    assert isinstance(asked.exception, InputError)
    assert "knows no run some-abc123" in asked.exception.what


class Elsewhere(BaseHTTPRequestHandler):
    """What is at an address that is not Kubeflow's: `answers` maps a part of the path to status, headers and body."""

    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        part = max((part for part in self.answers if part in self.path), key=len)
        status, headers, body = self.answers[part]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


LOGIN = b"<!DOCTYPE html>\n<html><head><title>Sign in &amp; go</title></head><body>Dex</body></html>"
HEALTHY = {"healthz": (200, {}, b'{"multi_user": false, "tag_name": "2.17.0"}')}
NOT_KUBEFLOW = [
    ({"": (200, {"Content-Type": "text/html"}, LOGIN)}, r"not the API of Kubeflow Pipelines: it is a web page, “Sign in & go”"),
    ({"": (302, {"Location": "/login?state=s3cr3t"}, b"")}, r"a redirection to /login"),
    ({"": (307, {"Location": "https://u:hunter2@dex/auth?x=s3cr3t"}, b"")}, r"a redirection to https://dex/auth \(HTTP 307"),
    ({"": (200, {}, b"ok")}, r"it is no JSON: ok"),
    ({"": (200, {}, b"")}, r"it is no JSON: nothing"),
    ({"": (200, {}, b"[1]")}, r"it is no JSON object"),
    ({"": (401, {}, b"Unauthorized")}, r"refuses: log in \(HTTP 401 Unauthorized\)"),
    ({"": (403, {}, LOGIN)}, r"refuses: log in \(HTTP 403 Forbidden\)"),
    ({"": (403, {}, b'{"error": "RBAC: access denied"}')}, r"refuses: RBAC: access denied"),
    ({"": (404, {}, b"404 page not found")}, r"not the API of Kubeflow Pipelines"),
    ({"": (500, {}, LOGIN)}, r"refuses: HTTP 500"),
    ({"": (503, {}, b"no healthy upstream")}, r"is not up: what stands before it answers HTTP 503"),
    ({"": (200, {}, LOGIN), **HEALTHY}, r"“Sign in & go”"),
    ({"": (302, {"Location": "/login"}, b""), **HEALTHY}, r"a redirection"),
    ({"": (200, {}, b'{"status": "up"}'), **HEALTHY}, r"JSON without a run's id|not the API"),
]


@pytest.mark.parametrize(("answers", "words"), NOT_KUBEFLOW, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_the_apis_answer_is_said_to_be_so_at_once(
    answers: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    handler = type("Handler", (Elsewhere,), {"answers": answers, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    there = {"kfp": {"host": f"http://127.0.0.1:{server.server_port}", "namespace": "pipelines"}, "namespace": "team"}
    there |= {"store": {"uri": "s3://bucket/edm2"}, "images": {"compute": "registry/compute", "control": "registry/control"}}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(there))
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"name": "some", "recipes": ["digits/C"], "epochs": [1], "metrics": ["fd"]}))
    try:
        done = CliRunner().invoke(submit, [str(tmp_path / "some.yaml"), "--cluster", str(tmp_path / "far.yaml")])
    finally:
        server.shutdown()
        server.server_close()
    assert isinstance(done.exception, EdmError), done
    assert re.search(words, done.exception.what)
    assert not re.search("hunter2|s3cr3t", str(done.exception))
    assert "Kubeflow's None" not in done.output
    assert capfd.readouterr().err == ""  # no traceback of a library's
    assert handler.asked.count("/apis/v2beta1/healthz") == 1


def test_without_a_host_and_a_kubeconfig_the_way_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = {"name": "far", "namespace": "team", "store": {"uri": "s3://bucket/x"}, "images": {"compute": "a", "control": "b"}}
    broken = {
        "none": None,
        "folder": "",
        "yaml": "a: [b",
        "text": "words",
        "list": "- a",
        "empty": "",
        "shape": "clusters: 3\ncontexts: x\ncurrent-context: y",
        "bytes": "a: \x00",
        "base64": "clusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: '%%%'}}]\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n",
    }
    for name, text in broken.items():
        file = tmp_path / name
        if name == "folder":
            file.mkdir()
        elif text is not None:
            file.write_text(text)
        monkeypatch.setenv("KUBECONFIG", str(file))
        for connect in (Kubeflow, Cluster.connect):
            with pytest.raises(InputError, match="There is no way to a cluster: ") as refused:
                connect(Profile.model_validate(profile))
            assert str(file) in refused.value.where


def test_submit_says_which_results_other_science_made_and_records_what_is_accepted(
    fake: FakeKubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(values(fake)))
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"name": "some", "recipes": ["digits/C"], "epochs": [1], "metrics": ["fd"]}))
    task = plan(load_experiment(tmp_path / "some.yaml"), {"data:digits/C": "builtin:digits"})[0]
    provenance = {"science": "0123456789" * 2, "code_version": "0.1.0+old"}
    made = Manifest(task.stage, task.version, task.key, task.title, task.settings, {}, {}, "a", {}, {}, provenance)
    open_store(str(tmp_path / "store")).write(task.ref.manifest, made.dumps())
    arguments = [str(tmp_path / "some.yaml"), "--cluster", str(tmp_path / "far.yaml")]
    far = CliRunner().invoke(submit, arguments, catch_exceptions=False).output
    assert "The store cannot be read from here" in far
    monkeypatch.setattr("pipelines.cli.submit.open_store", lambda uri: open_store(str(tmp_path / "store")))
    near = CliRunner().invoke(submit, [*arguments, "--accept-code"], catch_exceptions=False).output
    assert "what computes prepare differs in 0.1.0+old." in near
    assert ["accept_code" in plan_of(run) for run in fake.runs] == [False, True]


def plan_of(run: dict[str, Any]) -> str:
    """The plan that a run's package brings, as JSON."""
    (packed,) = re.findall(r"packed=([^\"]+)", json.dumps(run["pipeline_spec"]))
    return json.dumps(Packed.loads(packed).tasks)


def test_a_damaged_file_of_kubeflows_client_is_named(fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    (tmp_path / "context.json").write_text("{")
    with pytest.raises(EdmError, match="client refuses") as refused:
        Kubeflow(Profile.model_validate({"name": "far", **values(fake)}))
    assert "context.json" in refused.value.do_next


def test_requests_name_the_profiles_user_and_nobody_unless_it_names_one(fake: FakeKubeflow, package: Path) -> None:
    values_of = values(fake)
    Kubeflow(Profile.model_validate({"name": "far", **values_of})).submit(package, "e", "r")
    assert not any("kubeflow-userid" in each for each in fake.headers)
    fake.headers.clear()
    kfp_of = {**values_of["kfp"], "user": "me@example.com"}
    Kubeflow(Profile.model_validate({"name": "far", **values_of, "kfp": kfp_of})).submit(package, "e", "r")
    sent = [each.get("kubeflow-userid") for each in fake.headers]
    assert set(sent[-2:]) == {"me@example.com"}  # the very first request asks for the server's health, before there is a client


def test_a_service_accounts_token_goes_with_every_request_where_kubeflows_variable_names_it(
    fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    (tmp_path / "token").write_text("secret-token")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    Kubeflow(Profile.model_validate({"name": "far", **values(fake)})).submit(package, "e", "r")
    assert {each.get("authorization") for each in fake.headers} == {"Bearer secret-token"}


def test_the_cookie_of_an_earlier_login_goes_with_every_request(
    fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    (tmp_path / "context.json").write_text(json.dumps({"namespace": "team", "client_authentication_cookie": "session=1a2b"}))
    Kubeflow(Profile.model_validate({"name": "far", **values(fake)})).submit(package, "e", "r")
    assert {each.get("Cookie") for each in fake.headers} == {"session=1a2b"}


def started_by_others(fake: FakeKubeflow) -> None:
    """Runs as Kubeflow's API gives them: a clone, one of a schedule, one of an uploaded package, and another's under the name of ours."""
    root = {"inputDefinitions": {"parameters": {"run": {"parameterType": "STRING", "defaultValue": "some-abc123"}}}}
    document = {"pipeline_spec": {"root": root}, "platform_spec": {}}
    fake.uploaded = document
    fake.runs += [
        {
            "run_id": "clone",
            "display_name": "Clone of some-abc123",
            "state": "SUCCEEDED",
            "runtime_config": {"parameters": {"run": "some-abc123"}},
        },
        {"run_id": "scheduled", "display_name": "nightly 7", "state": "RUNNING", "pipeline_spec": document},
        {
            "run_id": "uploaded",
            "display_name": "by hand",
            "state": "FAILED",
            "pipeline_version_reference": {"pipeline_id": "p", "pipeline_version_id": "v"},
        },
        {"run_id": "other", "display_name": "some-abc123", "state": "RUNNING", "runtime_config": {"parameters": {"run": "other-123abc"}}},
    ]


def test_runs_are_found_by_their_parameter_whatever_they_are_called(fake: FakeKubeflow, kubeflow: Kubeflow) -> None:
    started_by_others(fake)
    assert [run.id for run in kubeflow.runs("some-abc123")] == ["uploaded", "scheduled", "clone"]
    assert [run.id for run in must_find(kubeflow, "some-abc123")] == ["scheduled"]
    assert [run.id for run in must_find(kubeflow, "other-123abc")] == ["other"]


def test_more_runs_than_one_answer_holds_are_looked_through(
    fake: FakeKubeflow, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.kubeflow.submit.PAGE", 2)
    started_by_others(fake)
    assert [run.id for run in kubeflow.runs("some-abc123")] == ["uploaded", "scheduled", "clone"]


def far_store(tmp_path: Path, fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, list[Task]]:
    """A recorded run in what stands for the profile's store, of which one task has failed before it had a pod."""
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(values(fake)))
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"name": "some", "recipes": ["digits/C"], "epochs": [1], "metrics": []}))
    read = load_experiment(tmp_path / "some.yaml")
    tasks = plan(read, {"data:digits/C": "builtin:digits"})
    record = open_run(open_store(str(tmp_path / "store")), read, tasks, {})
    record.log({"kind": "failed", "task": str(tasks[0].ref), "title": tasks[0].title, "error": "the namespace's quota is exhausted"})
    for module in ("status", "logs"):
        monkeypatch.setattr(f"pipelines.cli.{module}.find_run", lambda run, store: find_run(run, str(tmp_path / "store")))
    fake.runs.append({"run_id": "its", "display_name": "nightly", "state": "FAILED", "runtime_config": {"parameters": {"run": record.id}}})
    fake.runs[-1]["run_details"] = {"task_details": [{"display_name": "sample-driver", "error": {"message": "no such image"}}]}
    return record, tasks


def test_status_says_what_failed_and_why_with_a_link(fake: FakeKubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, tasks = far_store(tmp_path, fake, monkeypatch)
    said = CliRunner().invoke(status, [record.id, "--cluster", str(tmp_path / "far.yaml")], catch_exceptions=False).output
    assert f"nightly is failed. {fake.host}/#/runs/details/its" in said
    assert "sample-driver: no such image" in said
    assert f"{tasks[0].title}: failed: the namespace's quota is exhausted" in said
    assert f"0 of {len(tasks)} tasks are done." in said


def test_logs_have_the_reason_of_a_task_that_never_had_a_pod(fake: FakeKubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, tasks = far_store(tmp_path, fake, monkeypatch)
    said = CliRunner().invoke(logs, [record.id, "--cluster", str(tmp_path / "far.yaml")], catch_exceptions=False).output
    assert f"[{tasks[0].title}] failed: the namespace's quota is exhausted" in said
    assert "[Kubeflow: sample-driver] no such image" in said
