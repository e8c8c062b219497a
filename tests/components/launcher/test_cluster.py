"""What answers in place of a Kubernetes API server is said to be so, without a library's traceback."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes import client

from components.launcher.cluster import Cluster, ClusterError

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
    yield handler, Cluster(client.ApiClient(configuration), "team")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("body", [LOGIN, b"", b"ok", b"[1]", b'{"kind": "Status"}'])
def test_another_answer_than_the_api_servers_is_called_one(there: tuple[type[Page], Cluster], body: bytes) -> None:
    handler, cluster = there
    handler.answer = (200, body)
    for ask in (cluster.jobs, lambda: cluster.pods("x"), lambda: cluster.events({"x"})):
        with pytest.raises(ClusterError, match="is not the API server of Kubernetes"):
            ask()


@pytest.mark.parametrize(("status", "words"), [(401, "does not know this user"), (403, "refuses: HTTP 403"), (503, "refuses: HTTP 503")])
def test_a_refusal_without_words_of_its_own_gets_some(there: tuple[type[Page], Cluster], status: int, words: str) -> None:
    handler, cluster = there
    handler.answer = (status, LOGIN)
    for ask in (cluster.jobs, lambda: cluster.pod("x")):
        with pytest.raises(ClusterError, match=words):
            ask()
