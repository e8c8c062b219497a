"""What doctor says, as far as it can be seen without a cluster."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from kubernetes import client

from components.launcher.cluster import ApiServer
from components.launcher.job import prerequisites
from components.launcher.job_kinds import KINDS, JobKind
from components.launcher.profile import Profile, load_profile
from edm2core.errors import InputError
from pipelines.cli.doctor import command
from pipelines.doctor.cluster import GPU, check_api, check_cluster, gpus_used
from pipelines.doctor.machine import Check, check_here, check_store
from pipelines.doctor.pod import checks_in, probe_pod

PYTORCHJOB, TRAINJOB = KINDS


class Answers:
    """An API server that says what it is told to, and 404 to everything else."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[int, Any]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                status, body = outer.of.get(self.path.partition("?")[0], (404, {"message": "no such thing"}))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer()

            do_GET = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.api = api_at(self.server.server_port)


def api_at(port: int) -> ApiServer:
    return ApiServer(client.Configuration(host=f"http://127.0.0.1:{port}"))


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.server.shutdown()
    answers.server.server_close()


@pytest.fixture
def gpu() -> Profile:
    return load_profile("gpu")


def problems(checks: Iterator[Check]) -> list[str]:
    return [check.what for check in checks if check.state == "problem"]


def node(name: str, gpus: int, **spec: Any) -> dict[str, Any]:
    status = {"allocatable": {GPU: str(gpus)} if gpus else {}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def pod(where: str | None, gpus: int) -> dict[str, Any]:
    return {"spec": {"nodeName": where, "containers": [{"resources": {"limits": {GPU: str(gpus)}}}, {}]}}


def test_doctor_looks_at_this_machine_without_a_cluster() -> None:
    said = CliRunner().invoke(command, [], standalone_mode=False)
    assert said.return_value == 0
    assert "Python" in said.output
    assert "torch" in said.output
    assert not problems(check_here())


def test_an_unknown_context_is_an_error_of_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"There is no way to a cluster: .*found\.\n"):  # one full stop
        ApiServer.connect("nowhere")


def test_an_api_server_that_is_not_there_is_a_problem() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        check = check_api(api_at(free.getsockname()[1]))
    assert check.state == "problem"
    assert "cannot be reached" in check.what


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    checks = list(check_store(str(tmp_path)))
    assert [check.state for check in checks] == ["ok"] * 3
    assert not list(tmp_path.rglob("doctor/*"))


def test_a_store_that_is_no_store_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert problems(check_store(str(tmp_path / "file")))


def test_a_missing_operator_is_a_problem_with_the_way_out(answers: Answers) -> None:
    checks = [check for check in check_cluster(answers.api, None) if check.state == "problem"]
    assert "PyTorchJob" in checks[0].what
    assert "operator" in checks[0].do_next


def with_kinds(answers: Answers, *kinds: JobKind) -> None:
    """Let the API server know these kinds of job."""
    for kind in kinds:
        answers.of[f"/apis/{kind.group}/{kind.version}"] = (200, {"resources": [{"name": kind.plural}]})


def test_the_kind_of_job_is_what_the_cluster_has_and_pytorchjob_if_it_has_both(answers: Answers, gpu: Profile) -> None:
    with_kinds(answers, TRAINJOB)
    assert "Jobs are TrainJobs, the only kind that this cluster knows" in [check.what for check in check_cluster(answers.api, gpu)]
    with_kinds(answers, *KINDS)
    said = [check.what for check in check_cluster(answers.api, gpu)]
    assert "Jobs are PyTorchJobs. This cluster knows TrainJob too; `job: trainjob` in the profile chooses it" in said
    assert not any("the cluster knows TrainJob" in what for what in said)


def test_a_kind_that_the_profile_names_and_the_cluster_lacks_is_a_problem_with_both_ways_out(answers: Answers, gpu: Profile) -> None:
    with_kinds(answers, PYTORCHJOB)
    (check,) = [c for c in check_cluster(answers.api, gpu.model_copy(update={"job": "trainjob"})) if "knows no" in c.what]
    assert check.what == "the cluster knows no TrainJob (trainjobs.trainer.kubeflow.org, version v1alpha1)"
    assert "Trainer 2.2" in check.do_next
    assert "set `job: pytorchjob`" in check.do_next


def test_a_runtime_that_trainjobs_would_name_and_is_not_there_is_a_problem(answers: Answers, gpu: Profile) -> None:
    with_kinds(answers, TRAINJOB)
    names = [runtime["metadata"]["name"] for runtime in prerequisites(gpu.model_copy(update={"job": "trainjob"}))]
    answers.of[f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{gpu.namespace}/trainingruntimes/{names[0]}"] = (200, {})
    (missing,) = [check for check in check_cluster(answers.api, gpu) if check.what.startswith("the TrainingRuntime")]
    assert (missing.state, missing.what.split()[2]) == ("problem", names[1])
    assert missing.do_next == "edm2 render --runtimes --job trainjob --cluster gpu | kubectl apply -f -"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_a_queue_that_kueue_would_ignore_is_a_problem(answers: Answers, gpu: Profile, kind: JobKind) -> None:
    """Kueue suspends the jobs that it is to admit, which a creation that is not kept shows."""
    with_kinds(answers, kind)
    profile = gpu.model_copy(update={"queue": "gpus"})
    path = f"/apis/{kind.group}/{kind.version}/namespaces/{gpu.namespace}/{kind.plural}"
    answers.of[path] = (201, kind.suspension(True))
    assert Check("ok", f"Kueue holds a {kind.name} of the queue gpus until it is admitted") in list(check_cluster(answers.api, profile))
    answers.of[path] = (201, kind.suspension(False))
    (ignored,) = [check for check in check_cluster(answers.api, profile) if "would ignore" in check.what]
    assert ignored.state == "problem"
    assert f"Add {kind.group}/{kind.word} to integrations.frameworks" in ignored.do_next


def test_missing_rights_of_the_pods_account_are_named(answers: Answers, gpu: Profile) -> None:
    answers.of[f"/apis/authorization.k8s.io/v1/namespaces/{gpu.namespace}/localsubjectaccessreviews"] = (
        201,
        {"status": {"allowed": False}},
    )
    answers.of[f"/api/v1/namespaces/{gpu.namespace}"] = (200, {"metadata": {}})
    (rights,) = [what for what in problems(check_cluster(answers.api, gpu)) if "may not" in what]
    assert "create pytorchjobs" in rights
    assert "get pods/log" in rights


def test_a_secret_without_the_keys_that_the_profile_names_is_a_problem(answers: Answers, gpu: Profile) -> None:
    answers.of[f"/api/v1/namespaces/{gpu.namespace}"] = (200, {"metadata": {}})
    answers.of[f"/api/v1/namespaces/{gpu.namespace}/secrets/{gpu.store.secret}"] = (200, {"data": {"accesskey": "eA=="}})
    assert any("secretkey" in what for what in problems(check_cluster(answers.api, gpu)))


def test_what_a_profile_names_and_is_not_there_is_a_problem(answers: Answers, gpu: Profile) -> None:
    answers.of["/apis/scheduling.k8s.io/v1/priorityclasses/edm2-training"] = (200, {})
    profile = Profile.loads(json.dumps({**json.loads(gpu.dumps()), "queue": "gpus"}))
    missing = [what for what in problems(check_cluster(answers.api, profile)) if what.startswith("the profile names")]
    assert missing == [
        "the profile names the PriorityClass edm2-evaluation, which is not there",
        "the profile names the LocalQueue of Kueue gpus, which is not there",
    ]


def test_an_admission_policy_that_would_refuse_the_profiles_jobs_is_a_problem_and_one_that_is_missing_a_note(
    answers: Answers, gpu: Profile
) -> None:
    checks = list(check_cluster(answers.api, gpu))
    assert [check.state for check in checks if "admission policy" in check.what] == ["note"]
    answers.of["/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/edm2-jobs"] = (200, {})
    namespace, held = f"/api/v1/namespaces/{gpu.namespace}", "jobs of edm2-control are held to edm2-job and the store's Secret (edm2-jobs)"
    answers.of[namespace] = (200, {"metadata": {"annotations": {"edm2/job-secrets": "others"}}})
    (refused,) = [what for what in problems(check_cluster(answers.api, gpu)) if "admission policy" in what]
    assert refused == "the admission policy edm2-jobs admits jobs under edm2-job with the Secrets others alone"
    for allowed in ({}, {"edm2/job-secrets": "edm2-store,others", "edm2/job-account": "edm2-job"}):
        answers.of[namespace] = (200, {"metadata": {"annotations": allowed}})
        assert Check("ok", held) in list(check_cluster(answers.api, gpu))


def test_more_gpus_than_a_node_has_are_a_problem(answers: Answers, gpu: Profile) -> None:
    answers.of["/api/v1/nodes"] = (200, {"items": [node("small", 2), node("closed", 8, unschedulable=True)]})
    assert any("asks for 4 GPUs" in what and "has 2" in what for what in problems(check_cluster(answers.api, gpu)))


def test_free_gpus_are_those_that_no_pod_holds(answers: Answers, gpu: Profile) -> None:
    answers.of["/api/v1/nodes"] = (200, {"items": [node("big", 8)]})
    answers.of["/api/v1/pods"] = (200, {"items": [pod("big", 3), pod("big", 1), pod(None, 4)]})
    assert "node big: 4 of 8 GPUs are free" in [check.what for check in check_cluster(answers.api, gpu)]
    assert gpus_used([pod("a", 1), pod("b", 2), pod("a", 3)]) == {"a": 4, "b": 2}


def test_what_may_not_be_seen_is_a_note_and_no_problem(answers: Answers) -> None:
    answers.of["/api/v1/nodes"] = (403, {"message": "nodes is forbidden"})
    assert Check("note", "the nodes cannot be looked at: nodes is forbidden") in list(check_cluster(answers.api, None))


def test_the_version_of_kubeflow_pipelines_is_told(answers: Answers) -> None:
    path = "/api/v1/namespaces/kubeflow/services/http:ml-pipeline:8888/proxy/apis/v2beta1/healthz"
    answers.of[path] = (200, {"tag_name": "2.17.0", "multi_user": False})
    assert Check("ok", "Kubeflow Pipelines answers: 2.17.0") in list(check_cluster(answers.api, None))


def test_a_namespace_that_kubeflow_pipelines_would_not_use_is_a_problem(answers: Answers, gpu: Profile) -> None:
    path = "/api/v1/namespaces/kubeflow/services/http:ml-pipeline:8888/proxy/apis/v2beta1/healthz"
    answers.of[path] = (200, {"tag_name": "2.17.0", "multi_user": False})
    assert any("installed for one user" in what for what in problems(check_cluster(answers.api, gpu)))
    answers.of[path] = (200, {"tag_name": "2.17.0", "multi_user": True})
    assert not any("installed for one user" in what for what in problems(check_cluster(answers.api, gpu)))


def test_what_a_pod_sees_of_the_store_is_told_as_it_saw_it(gpu: Profile, tmp_path: Path) -> None:
    container = probe_pod(gpu, "doctor")["spec"]["containers"][0]
    for uri, state in ((str(tmp_path), "ok"), ("s3://", "problem")):
        command = [sys.executable, *container["command"][1:], uri]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seen = [Check(check.state, f"from a pod: {check.what}", check.do_next) for check in check_store(uri)]
        assert list(checks_in(f"a warning\n{log}")) == seen
        assert seen[-1].state == state
    assert [check.what for check in checks_in("no module\n")] == ["the probe pod said nothing about the store; its last words: no module"]


def test_the_probe_pod_is_one_of_ours_without_gpus(gpu: Profile) -> None:
    pod = probe_pod(gpu, "doctor")
    assert pod["spec"]["serviceAccountName"] == gpu.service_accounts.control
    assert {container["image"] for container in pod["spec"]["containers"]} == {gpu.images.control, gpu.images.compute}
    assert "nvidia" not in yaml.safe_dump(pod["spec"]["containers"])
    for container in pod["spec"]["containers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}
