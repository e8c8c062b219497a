"""What answers in place of an MLflow server, or refuses, is said in words and without the address's secrets."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from components.report.mlflow_server import MlflowServer
from edm2core.errors import EdmError

LOGIN = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (200, {}, LOGIN, "not its API, but a web page, “Sign in”; log in"),
        (404, {}, LOGIN, "not its API, but a web page, “Sign in”; log in"),
        (302, {"Location": "/login?state=s3cr3t"}, b"", "it refuses: log in"),
        (401, {}, b"You are not authenticated", "it refuses: log in"),
        (200, {}, b"{}", "not its API: it names no experiment"),
    ],
)
def test_a_login_page_is_not_taken_for_mlflow(status: int, headers: dict[str, str], body: bytes, words: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        with pytest.raises(EdmError, match=words) as refused:
            MlflowServer(f"http://user:hunter2@127.0.0.1:{server.server_port}/?token=s3cr3t").log("e", [], ended=True)
    finally:
        server.shutdown()
        server.server_close()
    for secret in ("hunter2", "s3cr3t"):
        assert secret not in str(refused.value)
