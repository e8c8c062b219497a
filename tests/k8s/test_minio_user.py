"""The user that pods work as, made in a real MinIO: it has one bucket and no more."""

import importlib.util
import io
import json
import os
import secrets
from pathlib import Path
from types import ModuleType

import pytest
from minio import Minio
from minio.error import S3Error

from edm2core.store import open_store
from tests.edm2core.store.conftest import Server, minio_server  # noqa: F401

SCRIPT = Path(__file__).parents[2] / "k8s" / "overlays" / "minio" / "user.py"


@pytest.fixture
def script(minio_server: Server, monkeypatch: pytest.MonkeyPatch) -> ModuleType:  # noqa: F811
    """The script, with the environment that its container has."""
    values = {
        "MINIO": f"127.0.0.1:{minio_server.port}",
        "MINIO_ROOT_USER": Server.user,
        "MINIO_ROOT_PASSWORD": Server.password,
        "AWS_ACCESS_KEY_ID": f"user-{secrets.token_hex(3)}",
        "AWS_SECRET_ACCESS_KEY": "of-the-user-alone",
        "BUCKET": f"edm2-{secrets.token_hex(3)}",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    specification = importlib.util.spec_from_file_location("minio_user", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def client(user: str, password: str) -> Minio:
    return Minio(os.environ["MINIO"], user, password, secure=False)


@pytest.mark.needs("minio")
@pytest.mark.slow
def test_the_user_has_its_bucket_and_nothing_else(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = os.environ["BUCKET"], f"other-{secrets.token_hex(3)}"
    root = client(Server.user, Server.password)
    root.make_bucket(mine)
    root.make_bucket(other)
    script.make_user()
    script.make_user()  # as after a restart of its container
    user = client(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    for forbidden in (
        lambda: list(user.list_objects(other)),
        lambda: user.put_object(other, "a", io.BytesIO(b"x"), 1),
        lambda: user.make_bucket("a-new-one"),
        lambda: user.remove_bucket(mine),
        lambda: user.set_bucket_policy(mine, json.dumps(script.policy(mine))),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            forbidden()
    monkeypatch.setenv("EDM2_S3_ENDPOINT", f"http://{os.environ['MINIO']}")
    store = open_store(f"s3://{mine}/store")
    store.write("a/b", b"x" * (16 << 20))  # in several parts
    assert store.read("a/b")[:1] == b"x"
    assert [entry.path for entry in store.list("a/")] == ["a/b"]
    store.delete("a/b")
