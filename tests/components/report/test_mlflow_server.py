"""Against a real MLflow server."""

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.report.mlflow_server import IDENTITY, URI, MlflowServer
from edm2core.errors import EdmError, InputError
from edm2core.report.tracked import Data, Point, Tracked

TRAINING = Tracked(
    "0123456789abcdef",
    "cifar10/E · seed 0",
    {f"network.setting{number}": str(number) for number in range(120)} | {"recipe": "cifar10/E"},
    {"edm2.run": "e-1", "edm2.protocol.fid": "18 steps"},
    (*(Point("loss", epoch, 1 / epoch, 1e9 + epoch) for epoch in range(1, 1101)), Point("fid", 100, 2.5, 2e9)),
    Data("cifar10", "ab" * 32, "s3://bucket/edm2/results/prepare/0/a"),
    [{"result": "snapshot/1", "location": "s3://bucket/edm2/results/snapshot/1/a", "files": {"x": {"sha256": "cd" * 32, "bytes": 3}}}],
    ("missing",),
)


@pytest.fixture
def client(mlflow_uri: str) -> MlflowClient:
    return MlflowClient(mlflow_uri)


def runs(client: MlflowClient, experiment: str) -> list[Run]:
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def test_a_training_is_a_run_with_parameters_tags_points_data_and_a_list_of_results(client: MlflowClient, mlflow_uri: str) -> None:
    MlflowServer(mlflow_uri).log("whole", [TRAINING], ended=False)
    (run,) = runs(client, "whole")
    assert run.info.run_name == TRAINING.name
    assert run.info.status == "RUNNING"
    assert run.data.params == TRAINING.parameters
    assert run.data.tags.items() >= {**TRAINING.tags, IDENTITY: TRAINING.identity}.items()
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(p.epoch, p.value) for p in TRAINING.points if p.metric == "loss"]
    (point,) = client.get_metric_history(run.info.run_id, "fid")
    assert (point.step, point.value, point.timestamp) == (100, 2.5, 2_000_000_000_000)
    (data,) = run.inputs.dataset_inputs
    assert json.loads(data.dataset.source)["uri"] == "s3://bucket/edm2/results/prepare/0/a"
    file = client.download_artifacts(run.info.run_id, "results.json")
    assert json.loads(Path(file).read_text()) == {"results": TRAINING.results}


def test_what_is_there_is_not_sent_again_by_whichever_process(client: MlflowClient, mlflow_uri: str) -> None:
    server = MlflowServer(mlflow_uri)
    server.log("again", [TRAINING], ended=False)
    server.log("again", [TRAINING], ended=False)
    (before,) = runs(client, "again")
    longer = replace(TRAINING, points=(*TRAINING.points, Point("fid", 200, 2.0, 2e9)), tags={"edm2.run": "e-2"}, undone=())
    MlflowServer(mlflow_uri).log("again", [longer], ended=True)
    (after,) = runs(client, "again")
    assert after.info.run_id == before.info.run_id
    assert [point.step for point in client.get_metric_history(after.info.run_id, "fid")] == [100, 200]
    assert len(client.get_metric_history(after.info.run_id, "loss")) == 1100
    assert after.data.tags["edm2.run"] == "e-2"
    assert after.info.status == "FINISHED"
    assert after.info.end_time is not None
    assert len(after.inputs.dataset_inputs) == 1


@pytest.mark.parametrize(
    ("undone", "ended", "status"),
    [
        (("missing",), False, "RUNNING"),
        ((), False, "FINISHED"),
        (("failed", "skipped"), True, "FAILED"),
        (("damaged",), True, "FAILED"),
        (("interrupted",), True, "KILLED"),
    ],
)
def test_mlflow_is_told_whether_a_training_runs_failed_or_finished(
    client: MlflowClient, mlflow_uri: str, undone: tuple[str, ...], ended: bool, status: str, request: pytest.FixtureRequest
) -> None:
    MlflowServer(mlflow_uri).log(request.node.name, [replace(TRAINING, points=(), undone=undone)], ended=ended)
    (run,) = runs(client, request.node.name)
    assert run.info.status == status


def test_a_run_that_ended_goes_on(client: MlflowClient, mlflow_uri: str) -> None:
    for undone in ((), ("missing",)):
        MlflowServer(mlflow_uri).log("goes on", [replace(TRAINING, points=(), undone=undone)], ended=False)
    (run,) = runs(client, "goes on")
    assert run.info.status == "RUNNING"


def test_of_two_that_make_the_same_run_at_once_one_stays(client: MlflowClient, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = MlflowServer(mlflow_uri), MlflowServer(mlflow_uri)
    create = slow._client.create_run

    def late(*arguments: object, **named: object) -> Run:
        quick.log("race", [TRAINING], ended=False)
        return create(*arguments, **named)

    monkeypatch.setattr(slow._client, "create_run", late)
    slow.log("race", [TRAINING], ended=False)
    (run,) = runs(client, "race")
    assert len(client.get_metric_history(run.info.run_id, "fid")) == 1


def test_a_server_that_is_gone_is_said_in_words_and_soon(mlflow_uri: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
    server = MlflowServer(uri)
    with pytest.raises(EdmError, match="was not told everything: it does not answer") as raised:
        server.log("gone", [TRAINING], ended=False)
    assert "secret" not in str(raised.value)
    assert "logged when the same command runs again" in raised.value.do_next
    server._client = MlflowServer(mlflow_uri)._client
    server.log("gone", [TRAINING], ended=False)  # it is back


def test_a_server_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = MlflowServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(EdmError, match="it does not answer"):
            server.log("silent", [TRAINING], ended=False)


def test_credentials_of_an_address_are_in_no_message(mlflow_uri: str) -> None:
    server = MlflowServer(mlflow_uri.replace("127.0.0.1", "user:secret@127.0.0.1") + "/nowhere")
    with pytest.raises(EdmError) as raised:
        server.log("gone", [TRAINING], ended=False)
    assert "secret" not in str(raised.value)
    assert "127.0.0.1" in str(raised.value)


def test_what_failed_half_way_is_completed(client: MlflowClient, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MlflowServer(mlflow_uri)
    with monkeypatch.context() as broken:
        broken.setattr(server._client, "log_dict", lambda *_: (_ for _ in ()).throw(RuntimeError("no room")))
        with pytest.raises(EdmError, match="everything: no room"):
            server.log("half", [TRAINING], ended=False)
    server.log("half", [TRAINING], ended=False)
    (run,) = runs(client, "half")
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1100
    assert client.list_artifacts(run.info.run_id)[0].path == "results.json"


def test_a_deleted_experiment_is_named(client: MlflowClient, mlflow_uri: str) -> None:
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(EdmError, match="its experiment deleted is deleted; restore it with `mlflow experiments restore"):
        MlflowServer(mlflow_uri).log("deleted", [TRAINING], ended=False)


def test_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI, raising=False)
    assert MlflowServer.named() is None
    monkeypatch.setenv(URI, "http://user:secret@localhost:5000/path")
    server = MlflowServer.named()
    assert server is not None
    assert server.uri == "http://localhost:5000/path"


def test_an_address_that_is_none_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "htp://localhost")
    with pytest.raises(InputError, match="cannot use this address"):
        MlflowServer.named()


def test_where_the_client_is_not_installed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed") as raised:
        MlflowServer("http://localhost:5000")
    assert "pip install mlflow-skinny" in raised.value.do_next
