"""What only a store behind a network meets: broken connections, refusals, other clocks."""

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio import MinioAdmin
from minio.credentials import StaticProvider
from urllib3.exceptions import MaxRetryError, ReadTimeoutError

from edm2core.errors import InputError, IntegrityError, MissingError, StoreError
from edm2core.store import Store, open_store, s3, s3_client
from tests.needs import MINIO

BIG = os.urandom(11 * 2**20)  # three parts

LOOK = ["s3:ListBucket", "s3:GetObject"]


@pytest.fixture(autouse=True)
def retries_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "BACKOFF_S", 0)
    monkeypatch.setattr(s3, "PAUSE_S", 0)
    monkeypatch.setattr(s3, "PART", 5 * 2**20)


@pytest.fixture(params=[pytest.param("minio_server", marks=MINIO), "seaweedfs_server"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def proxy(server: Any) -> Iterator[Any]:
    proxy = server.proxy()
    yield proxy
    proxy.close()


@pytest.fixture
def far(server: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store behind the proxy."""
    return open_store(server.use(monkeypatch, proxy.endpoint))


@pytest.fixture
def big(tmp_path: Path) -> Path:
    (tmp_path / "big").write_bytes(BIG)
    return tmp_path / "big"


@pytest.mark.parametrize("kind", ["unavailable", "dropped", "lost", "error:SlowDown:503", "error:InternalError:500"])
def test_every_operation_survives_a_server_that_fails_twice(far: Store, proxy: Any, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"12345678")

    def again() -> None:
        proxy.fault(kind, times=2)

    for operation in (
        lambda: far.write("a/b", b"12345678"),
        lambda: far.create("a/c", b"new"),
        lambda: far.upload(source, "a/d"),
    ):
        again()
        assert operation() in (None, True, s3.file_record(source))
        assert len(proxy.happened) == 2
        proxy.happened.clear()
    again()
    assert [entry.path for entry in far.list("a/")] == ["a/b", "a/c", "a/d"]
    again()
    assert far.read("a/d") == b"12345678"
    again()
    assert far.fetch("a/d", tmp_path / "down", s3.file_record(source)).read_bytes() == b"12345678"
    again()
    assert far.stat("a/b") is not None
    again()
    far.delete("a/b")
    assert far.stat("a/b") is None


def test_a_way_to_the_store_that_is_broken_for_long_is_waited_for_as_one_that_refuses(far: Store, proxy: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"12345678")
    for operation in (lambda: far.upload(source, "a/b"), lambda: far.read("a/b"), lambda: list(far.list("a/"))):
        proxy.fault("dropped", times=10)  # as a proxy before a store that is away does at once
        assert operation()
        assert len(proxy.happened) == 10
        proxy.happened.clear()


def test_a_server_that_never_answers_is_given_up_before_its_time_outs_add_up_to_a_quarter_of_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDM2_S3_ENDPOINT", "http://127.0.0.1:1")
    http = s3_client.Client("s3://bucket/x").http
    http.retry(s3_client.WORK_RETRIES)
    retries: Any = http.connection_pool_kw["retries"]
    pool: Any = None
    for _ in range(s3_client.SILENT_RETRIES):
        retries = retries.increment("GET", "/x", error=ReadTimeoutError(pool, "/x", "no answer"), _pool=pool)
    with pytest.raises(MaxRetryError):
        retries.increment("GET", "/x", error=ReadTimeoutError(pool, "/x", "no answer"), _pool=pool)


def test_the_winner_of_a_create_whose_answer_is_lost_still_wins(far: Store, proxy: Any) -> None:
    proxy.fault("lost", "PUT")
    assert far.create("a/b", b"same")
    assert proxy.happened
    assert not far.create("a/b", b"same")  # not the same call: another writer of the same bytes


@pytest.mark.parametrize(("method", "part"), [("POST", "uploads="), ("PUT", "partNumber=2"), ("POST", "uploadId=")])
@pytest.mark.parametrize("kind", ["unavailable", "dropped", "lost"])
def test_a_large_upload_survives_a_fault_in_each_of_its_steps(
    far: Store, proxy: Any, big: Path, tmp_path: Path, method: str, part: str, kind: str
) -> None:
    proxy.fault(kind, method, part)
    record = far.upload(big, "a/big")
    assert proxy.happened
    assert record == s3.file_record(big) == far.record("a/big")


def test_a_bit_flipped_on_the_way_in_is_noticed_and_sent_again(far: Store, proxy: Any, big: Path) -> None:
    proxy.fault("flipped-in", "PUT", "partNumber=2")
    proxy.fault("flipped-in", "PUT", "small")
    proxy.fault("flipped-in", "PUT", "made")
    far.upload(big, "a/big")
    far.write("a/small", b"12345678")
    assert far.create("a/made", b"12345678")
    assert len(proxy.happened) == 3
    assert far.record("a/big") == s3.file_record(big)
    assert far.read("a/small") == far.read("a/made") == b"12345678"


@pytest.mark.parametrize("kind", ["truncated", "flipped", "dropped", "unavailable"])
def test_a_download_survives_what_the_wire_does_once(far: Store, proxy: Any, big: Path, tmp_path: Path, kind: str) -> None:
    record = far.upload(big, "a/big")
    far.write("a/small", b"12345678")
    proxy.fault(kind, "GET", "a/big")
    proxy.fault(kind, "GET", "a/small")
    assert far.fetch("a/big", tmp_path / "down", record).read_bytes() == BIG
    assert far.read("a/small") == b"12345678"
    assert len(proxy.happened) == 2
    proxy.fault(kind, "GET", "a/big")
    assert far.record("a/big") == record


def test_damage_that_stays_is_an_error_that_names_the_object(far: Store, proxy: Any, tmp_path: Path) -> None:
    far.write("a/b", b"12345678")
    proxy.fault("flipped", "GET", "a/b", times=99)
    for operation in (lambda: far.read("a/b"), lambda: far.fetch("a/b", tmp_path, None)):
        with pytest.raises(IntegrityError) as caught:
            operation()
        assert "a/b" in caught.value.where
    assert list(tmp_path.rglob("*b*")) == []


def test_a_download_that_never_comes_whole_ends(far: Store, proxy: Any, tmp_path: Path) -> None:
    far.write("a/b", b"12345678" * 100)
    proxy.fault("truncated", "GET", "a/b", times=999)
    with pytest.raises(StoreError, match="connection") as caught:
        far.fetch("a/b", tmp_path)
    assert not caught.value.permanent
    assert proxy.endpoint in caught.value.where


@pytest.mark.slow
def test_a_server_that_is_away_during_an_upload_is_waited_for(
    far: Store, proxy: Any, server: Any, big: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s3_client, "BACKOFF_S", 0.5)
    far = open_store(far.uri)

    def away() -> None:
        server.stop()
        threading.Timer(4, server.start).start()

    proxy.fault(away, "PUT", "partNumber=2")
    record = far.upload(big, "a/big")
    assert far.record("a/big") == record == s3.file_record(big)
    assert "does not answer as it should" in caplog.text


UPLOADER = """
import sys
from pathlib import Path
from edm2core.store import open_store, s3
s3.PART = 5 * 2**20
open_store(sys.argv[1]).upload(Path(sys.argv[2]), "a/big")
"""
REQUESTS_OF_AN_UPLOAD = [("POST", "uploads="), ("PUT", "partNumber=1"), ("PUT", "partNumber=3"), ("POST", "uploadId=")]


def test_an_uploader_killed_at_any_request_leaves_all_or_nothing(
    server: Any, proxy: Any, far: Store, monkeypatch: pytest.MonkeyPatch, big: Path
) -> None:
    store = far
    for request in REQUESTS_OF_AN_UPLOAD:
        started: list[subprocess.Popen[bytes]] = []
        proxy.fault(lambda started=started: started[0].kill(), *request)
        started.append(subprocess.Popen([sys.executable, "-c", UPLOADER, store.uri, str(big)]))
        assert started[0].wait(60) == -signal.SIGKILL
        if store.stat("a/big") is not None:
            assert store.record("a/big") == s3.file_record(big)
        assert {entry.path for entry in store.list("")} <= {"a/big"}
        store.delete("a/big")
    assert store.sweep(0, lambda path: False) == 0  # too young for anybody to know that nobody is writing it
    monkeypatch.setattr("edm2core.store.s3.UNKNOWN_S", 0.0)
    assert store.sweep(0, lambda path: path == "a/big") == 0
    store.sweep(0, lambda path: False)
    assert store.sweep(0, lambda path: False) == 0


def test_ages_are_by_the_servers_clock(far: Store, proxy: Any) -> None:
    far.write("a/b", b"")
    proxy.clock_shift = 1000.0
    entry = far.stat("a/b")
    assert entry is not None
    assert 990 < entry.age_s < 1060
    (listed,) = far.list("a/")
    assert 990 < listed.age_s < 1060


def test_what_lies_there_already_is_not_downloaded_again(far: Store, proxy: Any, tmp_path: Path) -> None:
    far.write("a/b", b"12345678")
    record = far.record("a/b")
    path = far.fetch("a/b", tmp_path, record)
    proxy.fault("unavailable", "GET", times=999)
    assert far.fetch("a/b", tmp_path, record) == path
    assert open_store_again(far, proxy).fetch("a/b", tmp_path, record) == path
    path.write_bytes(b"1234567x")
    proxy.faults = []
    assert far.fetch("a/b", tmp_path, record).read_bytes() == b"12345678"


def open_store_again(store: Store, proxy: Any) -> Store:
    faults, proxy.faults = proxy.faults, []
    again = open_store(store.uri)
    proxy.faults = faults
    return again


def test_a_file_that_changes_while_it_is_uploaded_is_not_kept(far: Store, proxy: Any, big: Path) -> None:
    def change() -> None:
        with big.open("ab") as file:
            file.write(b"more")

    proxy.fault(change, "PUT")
    with pytest.raises(IntegrityError, match="changed"):
        far.upload(big, "a/big")
    assert far.stat("a/big") is None


@pytest.mark.parametrize(("code", "status"), [("XMinioStorageFull", 507), ("QuotaExceeded", 403), ("AccessDenied", 403)])
def test_refusals_name_endpoint_bucket_and_right(far: Store, proxy: Any, tmp_path: Path, code: str, status: int) -> None:
    (tmp_path / "source").write_bytes(b"x")
    proxy.fault(f"error:{code}:{status}", times=99)
    for operation, right in (
        (lambda: far.write("a/b", b""), "s3:PutObject"),
        (lambda: far.create("a/b", b""), "s3:PutObject"),
        (lambda: far.upload(tmp_path / "source", "a/b"), "s3:PutObject"),
        (lambda: far.read("a/b"), "s3:GetObject"),
        (lambda: list(far.list("a/")), "s3:ListBucket"),
    ):
        with pytest.raises(StoreError) as caught:
            operation()
        assert not isinstance(caught.value, MissingError)
        assert proxy.endpoint in caught.value.where
        assert "bucket edm2" in caught.value.where
        assert ("full" in caught.value.what) is (code != "AccessDenied")
        if code == "AccessDenied":
            assert right in caught.value.do_next


def test_a_missing_bucket_is_named(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.use(monkeypatch)
    with pytest.raises(StoreError, match="bucket does not exist") as caught:
        open_store("minio://no-such-bucket/prefix")
    assert server.endpoint in caught.value.where
    assert "no-such-bucket" in caught.value.where
    assert not isinstance(caught.value, MissingError)


def test_wrong_credentials_are_said_and_not_shown(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = server.use(monkeypatch)
    for name, value in (("AWS_SECRET_ACCESS_KEY", "wrong-secret-of-mine"), ("AWS_ACCESS_KEY_ID", "nobody-of-mine")):
        monkeypatch.setenv(name, value)
        with pytest.raises(StoreError, match="does not accept the credentials") as caught:
            open_store(uri)
        assert "of-mine" not in str(caught.value)


@pytest.mark.needs("minio")
@pytest.mark.slow
def test_a_user_who_may_not_list_and_one_who_may_not_write(minio_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = minio_server.use(monkeypatch)
    open_store(uri).write("a/b", b"here")
    owner = StaticProvider(minio_server.user, minio_server.password)
    admin = MinioAdmin(endpoint=minio_server.endpoint.removeprefix("http://"), credentials=owner, secure=False)
    admin.policy_add(
        "look", policy={"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": LOOK, "Resource": ["arn:aws:s3:::*"]}]}
    )
    for user, policy in (("reader", "readonly"), ("looker", "look")):
        admin.user_add(user, f"{user}-secret")
        admin.attach_policy([policy], user=user)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
    with pytest.raises(StoreError, match="denies access") as caught:
        open_store(uri)
    assert "s3:ListBucket" in caught.value.do_next
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "looker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "looker-secret")
    store = open_store(uri)
    assert store.read("a/b") == b"here"
    for operation in (lambda: store.write("a/b", b""), lambda: store.create("a/c", b"")):
        with pytest.raises(StoreError, match="denies access") as caught:
            operation()
        assert "s3:PutObject" in caught.value.do_next
        assert minio_server.endpoint in caught.value.where
    with pytest.raises(StoreError, match="denies access") as caught:
        store.delete("a/b")
    assert "s3:DeleteObject" in caught.value.do_next


@pytest.mark.needs("minio")
@pytest.mark.slow
def test_credentials_from_a_mounted_secret(minio_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = minio_server.use(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("EDM2_S3_CREDENTIALS", str(tmp_path))
    with pytest.raises(InputError, match="has no file accesskey"):
        open_store(uri)
    (tmp_path / "accesskey").write_text(f"{minio_server.user}\n")
    (tmp_path / "secretkey").write_text("old")
    with pytest.raises(StoreError, match="credentials"):
        open_store(uri)
    (tmp_path / "secretkey").write_text(f"{minio_server.password}\n")
    open_store(uri).write("a/b", b"")


@pytest.mark.needs("minio")
@pytest.mark.slow
def test_credentials_from_a_file(minio_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = minio_server.use(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(StoreError, match="no credentials"):
        open_store(uri)
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {minio_server.user}\naws_secret_access_key = {minio_server.password}\n"
    )
    open_store(uri).write("a/b", b"")


def test_minio_without_an_address_and_addresses_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDM2_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="where MinIO is"):
        open_store("minio://bucket/prefix")
    for endpoint in ("minio:9000", "ftp://minio", "http://minio/path", "http://user:secret@minio"):
        monkeypatch.setenv("EDM2_S3_ENDPOINT", endpoint)
        with pytest.raises(InputError) as caught:
            open_store("minio://bucket/prefix")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://B", "s3://user:secret@bucket/a", "s3://bucket/../a", "s3://bucket/a?b=c"])
def test_an_address_of_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises((InputError, StoreError), match=r"not the address of a bucket|not the path of anything") as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)


def test_a_port_where_nobody_listens_and_a_host_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for endpoint, words in (("http://127.0.0.1:9", "does not answer"), ("http://nowhere.invalid:9000", "host name")):
        monkeypatch.setenv("EDM2_S3_ENDPOINT", endpoint)
        with pytest.raises(StoreError, match=words) as caught:
            open_store("minio://bucket/prefix")
        assert endpoint in caught.value.where
        assert not caught.value.permanent


def test_a_service_that_is_no_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>hello</h1>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    page = http.server.HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=page.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("EDM2_S3_ENDPOINT", f"http://127.0.0.1:{page.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(StoreError, match="not that of an S3 service"):
        open_store("minio://bucket/prefix")
    page.shutdown()
    page.server_close()
