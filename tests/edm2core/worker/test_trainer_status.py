import http.server
import json
import os
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edm2core.worker.trainer_status import CERTIFICATE, MOST_FAILURES, TOKEN, URL, TrainerStatus
from tests.waiting import wait_until


class Controller(http.server.ThreadingHTTPServer):
    """Answers as the controller's status server does, over TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        certificate, key = _certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.got, self.asked, self.answer = list[dict[str, Any]](), 0, 200
        (folder / "token").write_text("first\n")
        self.environment = {
            URL: f"https://127.0.0.1:{self.server_port}/namespaces/edm2/trainjobs/x/status",
            CERTIFICATE: str(certificate),
            TOKEN: str(folder / "token"),
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Controller

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        if self.server.answer == 200:
            self.server.got.append({"token": self.headers["Authorization"], "path": self.path, **body["trainerStatus"]})
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "controller")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return folder / "ca.crt", folder / "key"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    server = Controller(tmp_path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_progress_time_left_and_numbers_are_told_as_the_controller_reads_them(controller: Controller) -> None:
    status = TrainerStatus(controller.environment)
    status.tell(0.456, 120.4, {"loss": 0.25, "lr": None})
    status.close()
    (told,) = controller.got
    assert told["progressPercentage"] == 45
    assert told["estimatedRemainingSeconds"] == 120
    assert told["metrics"] == [{"name": "loss", "value": "0.25"}]
    assert datetime.fromisoformat(told["lastUpdatedTime"]).tzinfo is not None
    assert told["token"] == "Bearer first"
    assert told["path"] == "/namespaces/edm2/trainjobs/x/status"


def test_of_what_is_told_too_soon_only_the_last_is_sent(controller: Controller) -> None:
    status = TrainerStatus(controller.environment, every_s=3600)
    status.tell(0.1, 9, {})
    wait_until(lambda: controller.got)
    for percent in range(20, 101):
        status.tell(percent / 100, 1, {})
    status.close()
    assert [told["progressPercentage"] for told in controller.got] == [10, 100]


def test_the_token_is_read_anew_since_it_rotates(controller: Controller) -> None:
    status = TrainerStatus(controller.environment, every_s=0)
    status.tell(0.1, 9, {})
    wait_until(lambda: controller.got)
    Path(controller.environment[TOKEN]).write_text("second")
    status.tell(0.2, 8, {})
    status.close()
    assert [told["token"] for told in controller.got] == ["Bearer first", "Bearer second"]


def test_a_controller_that_refuses_is_left_alone_and_training_goes_on(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    controller.answer = 403
    status = TrainerStatus(controller.environment, every_s=0)
    for asked in range(MOST_FAILURES):
        status.tell(0.1, 9, {})
        wait_until(lambda asked=asked: controller.asked > asked)
    status.tell(0.2, 9, {})
    status.close()
    assert controller.asked == MOST_FAILURES
    assert capsys.readouterr().out.count("Kubeflow Trainer is not told any more") == 1


def test_nothing_is_sent_to_a_server_with_another_certificate(controller: Controller, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other, _ = _certificate(tmp_path / "other")
    status = TrainerStatus({**controller.environment, CERTIFICATE: str(other)})
    status.tell(0.1, 9, {})
    status.close()
    assert controller.asked == 0


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1/plain"])
def test_without_an_https_address_nothing_is_begun(url: str) -> None:
    before = threading.active_count()
    status = TrainerStatus({URL: url} if url else {name: value for name, value in os.environ.items() if name != URL})
    status.tell(0.5, 1, {})
    status.close()
    assert threading.active_count() == before
