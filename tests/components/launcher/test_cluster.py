"""What answers in place of a Kubernetes API server is said to be so, without a library's traceback."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes import client

from components.launcher.cluster import ApiServer, Cluster, ClusterError, refusal
from components.launcher.job_kinds.pytorchjob import PyTorchJob

LOGIN = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


class Page(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, LOGIN)

    def do_GET(self) -> None:
        self.send_response(self.answer[0])
        self.send_header("Content-Length", str(len(self.answer[1])))
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def there() -> Iterator[tuple[type[Page], Cluster]]:
    handler = type("Handler", (Page,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{server.server_port}"
    yield handler, Cluster(ApiServer(configuration), "team", PyTorchJob())
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("body", [LOGIN, b"", b"ok", b"[1]", b'{"kind": "Status"}'])
def test_another_answer_than_the_api_servers_is_called_one(there: tuple[type[Page], Cluster], body: bytes) -> None:
    handler, cluster = there
    handler.answer = (200, body)
    for ask in (cluster.jobs, lambda: cluster.pods("x"), cluster.events):
        with pytest.raises(ClusterError, match="is not the API server of Kubernetes"):
            ask()


@pytest.mark.parametrize(("status", "words"), [(401, "does not know this user"), (403, "refuses: HTTP 403"), (503, "refuses: HTTP 503")])
def test_a_refusal_without_words_of_its_own_gets_some(there: tuple[type[Page], Cluster], status: int, words: str) -> None:
    handler, cluster = there
    handler.answer = (status, LOGIN)
    for ask in (cluster.jobs, lambda: cluster.pod("x")):
        with pytest.raises(ClusterError, match=words):
            ask()


def test_a_redirection_leads_to_a_page_to_log_in_and_not_to_the_api_server(there: tuple[type[Page], Cluster]) -> None:
    handler, cluster = there
    handler.answer = (302, b"")
    with pytest.raises(ClusterError, match="is not the API server of Kubernetes"):
        cluster.jobs()


def test_a_cluster_that_lacks_the_kind_of_job_says_what_to_install(there: tuple[type[Page], Cluster]) -> None:
    handler, cluster = there
    handler.answer = (404, b"404 page not found")
    for ask in (cluster.jobs, lambda: cluster.job("x")):
        with pytest.raises(ClusterError, match="knows no PyTorchJob: the training operator"):
            ask()


def test_an_absent_object_is_returned_as_none(there: tuple[type[Page], Cluster]) -> None:
    handler, cluster = there
    handler.answer = (404, b'{"message": "not found"}')
    assert cluster.job("x") is None
    assert cluster.pod("x") is None


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (404, 'namespaces "team" not found', "no such namespace"),
        (403, 'pytorchjobs.kubeflow.org is forbidden: User "x" cannot create resource', "verb create on pytorchjobs"),
        (403, 'admission webhook "x" denied the request: no', "denied the request"),
        (422, "spec is invalid", "spec is invalid"),
        (401, "Unauthorized", "does not know this user"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, message: str, words: str) -> None:
    error = refusal(status, message, "create", "pytorchjobs", "here")
    assert words in f"{error.what} {error.do_next}"
    assert error.permanent


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_passing_fault_of_the_api_server_is_not_permanent(status: int) -> None:
    assert not refusal(status, "later", "get", "pods", "here").permanent
