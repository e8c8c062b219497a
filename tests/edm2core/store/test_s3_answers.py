"""What services answer that do not do what was asked, as AWS, MinIO and others word it: each is told in their words, with what is wrong."""

import http.server
import re
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edm2core.errors import EdmError, StoreError
from edm2core.store import open_store, s3, s3_client

XML = "application/xml"
EMPTY = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>"


def error(code: str, message: str, more: str = "") -> str:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>1</RequestId></Error>"


class Service(http.server.ThreadingHTTPServer):
    """Answers all requests alike, or those for its region with success."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[int, str, str, dict[str, str]] = (200, XML, EMPTY, {})
        self.wrong: list[str] = []  # bodies of answers with status 404, before any other
        self.region = ""  # for which requests must be signed
        self.signed_for: list[str] = []
        self.objects: dict[str, bytes] = {}


class Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def _answer(self) -> None:
        found = re.search(r"Credential=[^/]+/\d+/([^/]+)/", self.headers.get("Authorization", ""))
        region = found[1] if found else ""
        self.server.signed_for.append(region)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, kind, text, headers = self.server.answer
        if self.server.wrong:
            status, kind, text, headers = 404, "text/plain", self.server.wrong.pop(), {}
        if self.server.region and region == self.server.region:
            status, kind, text, headers = 200, XML, EMPTY, {}
            if self.command == "PUT":
                self.server.objects[self.path] = body
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(text.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    do_GET = do_PUT = do_HEAD = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "BACKOFF_S", 0)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "EDM2_S3_CREDENTIALS", "SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("EDM2_S3_ENDPOINT", f"http://127.0.0.1:{service.server_port}")
    yield service
    service.shutdown()
    service.server_close()


AWS_REGION = error(
    "AuthorizationHeaderMalformed", "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'"
)
ANSWERS = [
    (
        400,
        error("ExpiredToken", "The provided token has expired."),
        ["have expired", "The provided token has expired", "AWS_SESSION_TOKEN"],
    ),
    (400, error("InvalidToken", "The provided token is malformed"), ["token is malformed", "AWS_SESSION_TOKEN"]),
    (403, error("InvalidAccessKeyId", "The Access Key Id you provided does not exist"), ["Key Id you provided", "AWS_ACCESS_KEY_ID"]),
    (403, error("SignatureDoesNotMatch", "Check your key"), ["Check your key", "AWS_SECRET_ACCESS_KEY"]),
    (
        403,
        error("AccessDenied", "User: arn:aws:iam::1:user/x is not authorized to perform: kms:GenerateDataKey on this resource"),
        ["kms:GenerateDataKey on this resource", "encrypted", "kms:Decrypt"],
    ),
    (400, error("KMS.DisabledException", "arn:aws:kms:x is disabled."), ["is disabled", "encrypted", "enabled"]),
    (403, error("AccessDenied", "Access Denied"), ["denies access (AccessDenied: Access Denied)", "s3:ListBucket"]),
    (301, error("PermanentRedirect", "The bucket must be addressed using the specified endpoint"), ["another region", "AWS_REGION"]),
    (403, error("RequestTimeTooSkewed", "The difference is too large."), ["clocks", "The difference is too large"]),
    (400, error("SomethingNew", "In its own words."), ["SomethingNew: In its own words."]),
]


@pytest.mark.parametrize(("status", "body", "words"), ANSWERS, ids=lambda value: "" if not isinstance(value, str) else value[60:90])
def test_a_refusal_is_told_in_the_services_words_with_what_is_wrong(service: Service, status: int, body: str, words: list[str]) -> None:
    service.answer = (status, XML, body, {})
    with pytest.raises(StoreError) as refused:
        open_store("s3://bucket/prefix")
    for each in words:
        assert each in str(refused.value)
    assert refused.value.permanent
    assert "hunter2" not in str(refused.value)
    assert ("credentials" in refused.value.what) is ("Token" in body or "Key Id" in body or "Signature" in body)
    assert len(service.signed_for) == 1


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, AWS_REGION, {}),
        (400, error("AuthorizationHeaderMalformed", "the region is wrong", "<Region>eu-central-1</Region>"), {}),
        (301, error("PermanentRedirect", "elsewhere"), {"x-amz-bucket-region": "eu-central-1"}),
    ],
)
def test_the_region_that_a_service_wants_is_taken_from_its_answer(
    service: Service, status: int, body: str, headers: dict[str, str]
) -> None:
    service.answer, service.region = (status, XML, body, headers), "eu-central-1"
    store = open_store("s3://bucket/prefix")
    store.write("a/b", b"12345678")
    assert service.objects == {"/bucket/prefix/a/b": b"12345678"}
    assert service.signed_for == ["us-east-1", "eu-central-1", "eu-central-1"]


def test_a_region_that_the_service_wants_and_does_not_take_is_named(service: Service) -> None:
    service.answer = (400, XML, AWS_REGION, {})
    with pytest.raises(StoreError, match=r"another region, eu-central-1 .*expecting 'eu-central-1'") as refused:
        open_store("s3://bucket/prefix")
    assert "AWS_REGION" in refused.value.do_next
    assert service.signed_for == ["us-east-1", "eu-central-1"]


@pytest.mark.parametrize("status", [200, 403, 404])
@pytest.mark.parametrize("kind", ["text/html", XML])
@pytest.mark.parametrize("body", ["<body><br></body>", "</head><body></body>"], ids=["no XML", "XML"])
def test_a_page_is_called_one_whatever_its_status(service: Service, status: int, kind: str, body: str) -> None:
    service.answer = (status, kind, f"<!DOCTYPE html><html><head><title>MinIO Console</title>{body}</html>", {})
    with pytest.raises(StoreError, match="not that of an S3 service: it is a web page, “MinIO Console”") as refused:
        open_store("s3://bucket/prefix")
    assert "EDM2_S3_ENDPOINT" in refused.value.do_next
    assert refused.value.permanent
    assert len(service.signed_for) == 1


@pytest.mark.parametrize("body", ["404 page not found", ""])
def test_others_may_answer_for_a_while_in_the_place_of_a_service_that_has_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(s3, "PAUSE_S", 0)
    store = open_store("s3://bucket/prefix")
    service.wrong = [body] * 20
    assert list(store.list("a/")) == []
    service.wrong = [body] * 20
    store.write("a/b", b"12345678")
    assert not service.wrong


def test_a_place_where_others_answer_for_good_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "AWAY_S", 0)
    store = open_store("s3://bucket/prefix")
    service.answer = (404, "text/plain", "404 page not found", {})
    with pytest.raises(StoreError, match="not that of an S3 service: it is “404 page not found”"):
        store.write("a/b", b"12345678")


@pytest.mark.parametrize("status", [302, 303])
@pytest.mark.parametrize("to", ["https://login.invalid/auth?state=hunter2", "/login?state=hunter2"])
def test_a_redirection_to_a_page_is_not_followed_but_named(service: Service, status: int, to: str) -> None:
    service.answer = (status, "text/html", "", {"Location": to})
    with pytest.raises(StoreError, match="not that of an S3 service: it is a redirection to ") as refused:
        open_store("s3://bucket/prefix")
    assert "hunter2" not in str(refused.value)
    assert "EDM2_S3_ENDPOINT" in refused.value.do_next
    assert len(service.signed_for) == 1


@pytest.mark.parametrize("to", ["https://login.invalid/auth?state=hunter2", "/login?state=hunter2"])
def test_where_a_redirection_leads_nowhere_it_is_named(service: Service, to: str) -> None:
    service.answer = (307, "text/html", "", {"Location": to})
    with pytest.raises(StoreError, match="it is a redirection to ") as refused:
        open_store("s3://bucket/prefix")
    assert "hunter2" not in str(refused.value)


def test_a_redirection_of_a_service_is_followed(service: Service) -> None:
    elsewhere = Service()
    threading.Thread(target=elsewhere.serve_forever, args=(0.01,), daemon=True).start()
    service.answer = (307, XML, "", {"Location": f"http://127.0.0.1:{elsewhere.server_port}/bucket"})
    try:
        open_store("s3://bucket/prefix")
    finally:
        elsewhere.shutdown()
        elsewhere.server_close()
    assert elsewhere.signed_for


def test_a_token_whose_user_is_gone_is_told_from_a_lacking_right(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.answer = (403, XML, error("AccessDenied", "Access Denied."), {})  # as MinIO answers
    with pytest.raises(StoreError) as refused:
        open_store("s3://bucket/prefix")
    assert "AWS_SESSION_TOKEN" not in refused.value.do_next
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with pytest.raises(StoreError) as refused:
        open_store("s3://bucket/prefix")
    assert "the user whom AWS_SESSION_TOKEN stands for" in refused.value.do_next


def test_a_console_is_quoted_in_its_words(service: Service) -> None:
    said = error("InvalidArgument", "S3 API Requests must be made to API port.")
    service.answer = (400, "text/xml; charset=utf-8", said, {})  # as MinIO's does
    with pytest.raises(StoreError, match=r"it is “S3 API Requests must be made to API port\.”"):
        open_store("s3://bucket/prefix")


def test_a_bucket_that_is_encrypted_by_a_server_without_keys_is_said_to_be_so(service: Service) -> None:
    said = "Server side encryption specified but KMS is not configured (KMS not configured for a server side encrypted objects)"
    service.answer = (501, XML, error("NotImplemented", said), {})
    with pytest.raises(StoreError, match=r"its server has no key service .*KMS is not configured") as refused:
        open_store("s3://bucket/prefix")
    assert "MINIO_KMS_SECRET_KEY" in refused.value.do_next


def test_a_page_in_answer_to_a_write_is_no_success(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "AWAY_S", 0)
    store = open_store("s3://bucket/prefix")
    service.answer = (200, "text/html", "<html><title>Sign in</title></html>", {})
    for write in (store.write, store.create):
        with pytest.raises(StoreError, match="a web page, “Sign in”"):
            write("a", b"b")


def test_what_does_not_speak_http_is_not_called_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ssh(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ssh) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("EDM2_S3_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(StoreError, match="does not speak HTTP"):
            open_store("s3://bucket/prefix")
        server.shutdown()


def test_the_variable_that_named_the_endpoint_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{service.server_port}")
    monkeypatch.delenv("EDM2_S3_ENDPOINT")
    service.answer = (200, "text/html", "<html>", {})
    with pytest.raises(StoreError) as refused:
        open_store("s3://bucket/prefix")
    assert "AWS_ENDPOINT_URL_S3" in refused.value.do_next
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://user:hunter2@host")
    with pytest.raises(EdmError) as refused_too:
        open_store("s3://bucket/prefix")
    assert refused_too.value.where == "AWS_ENDPOINT_URL_S3=http://host"


def test_a_service_that_speaks_http_is_not_blamed_on_its_certificate(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDM2_S3_ENDPOINT", f"https://127.0.0.1:{service.server_port}")
    with pytest.raises(StoreError, match="speaks http, and was spoken to in https") as refused:
        open_store("s3://bucket/prefix")
    assert "EDM2_S3_ENDPOINT" in refused.value.do_next
    service.answer = (400, "text/plain", "Client sent an HTTP request to an HTTPS server.\n", {})
    monkeypatch.setenv("EDM2_S3_ENDPOINT", f"http://127.0.0.1:{service.server_port}")
    with pytest.raises(StoreError, match="speaks https, and was spoken to in http"):
        open_store("s3://bucket/prefix")


@pytest.mark.needs("openssl")
def test_a_certificate_that_is_not_trusted_is_said_to_be_so(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=x",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    service.socket = context.wrap_socket(service.socket, server_side=True)
    monkeypatch.setenv("EDM2_S3_ENDPOINT", f"https://127.0.0.1:{service.server_port}")
    with pytest.raises(StoreError, match="certificate is not trusted") as refused:
        open_store("s3://bucket/prefix")
    assert "SSL_CERT_FILE" in refused.value.do_next


def test_a_malformed_file_of_credentials_is_named(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "credentials").write_text("aws_access_key_id = hunter2\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(StoreError, match="malformed") as refused:
        open_store("s3://bucket/prefix")
    assert refused.value.where == str(tmp_path / "credentials")
    assert "hunter2" not in str(refused.value)
