import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tenacity import wait_none

from edm2core.config.settings import DataSettings
from edm2core.data import download, fetch
from edm2core.errors import EdmError, InputError

CONTENT = os.urandom(5_000_000)
DIGEST = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `failures` are the next answers' status, `breaks` after how many bytes the next ones hang up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.breaks: list[int] = []
        self.failures: list[int] = []
        self.pages = 0  # to log in, before the file comes
        self.resumable = True
        self.url = f"http://127.0.0.1:{self.server_address[1]}/cifar.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.ranges.append(self.headers["Range"])
        if server.pages:
            server.pages -= 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"\n<!DOCTYPE html><html><title>Log in</title></html>")
            return
        if server.failures:
            self.send_error(server.failures.pop(0))
            return
        start = int(self.headers["Range"][6:-1]) if self.headers["Range"] and server.resumable else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(CONTENT[start : start + server.breaks.pop(0) if server.breaks else None])

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "WAIT", wait_none())
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server: Server, cache: Path, digest: str = DIGEST, query: str = "") -> Path:
    path = fetch(DataSettings(format="cifar10", source=server.url + query, digest=digest), cache)
    assert path is not None
    return path


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_url_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("-cifar.tar.gz")
    assert get(server, tmp_path / "cache") == path
    assert server.ranges == [None]
    assert files(tmp_path / "cache") == [path.name]


def test_a_broken_transfer_continues_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.breaks = [2_000_000, 1_000_000]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=2000000-", "bytes=3000000-"]


def test_a_later_call_continues_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.breaks = [100_000] * download.ATTEMPTS
    with pytest.raises(EdmError, match=r"failed 8 times(.|\n)*set data\.source to its path") as caught:
        get(server, tmp_path)
    assert not caught.value.permanent
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=800000-"


def test_where_nothing_arrives_every_attempt_is_said_and_the_setting_named_and_no_further_round_helps(
    server: Server, tmp_path: Path
) -> None:
    server.failures, said = [503] * 20, list[str]()
    wanted = download.Wanted(server.url, "inception_weights", download.Listener(say=said.append))
    with pytest.raises(EdmError, match=r"failed 8 times(.|\n)*inception_weights: http(.|\n)*set inception_weights to its path") as caught:
        download.download(wanted, tmp_path / "weights.pth", lambda _: None)
    assert caught.value.permanent
    assert len(said) == download.ATTEMPTS - 1
    assert said[0] == f"{server.url}: the server answered 503 Service Unavailable; trying again in 0 s, 7 more times"


def test_a_server_that_cannot_resume_sends_the_whole(server: Server, tmp_path: Path) -> None:
    server.breaks, server.resumable = [2_000_000], False
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    server.failures = [503, 429]
    assert get(server, tmp_path).read_bytes() == CONTENT
    server.failures, server.ranges = [404, 404], []
    with pytest.raises(InputError, match=r"answered 404(.|\n)*cifar\.tar\.gz"):
        get(server, tmp_path / "other")
    assert len(server.ranges) == 1


@pytest.mark.parametrize("size", [1000, 5_000_000, 6_000_000])
def test_a_damaged_remainder_is_fetched_anew(server: Server, tmp_path: Path, size: int) -> None:
    path = get(server, tmp_path)
    path.rename(path.with_name(path.name + ".part"))
    path.with_name(path.name + ".part").write_bytes(os.urandom(size))
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert files(tmp_path) == [path.name]


def test_a_damaged_copy_in_the_cache_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_names_the_url_without_its_secrets_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    wrong = "md5:" + "0" * 32
    with pytest.raises(InputError, match="digest is wrong") as caught:
        get(server, tmp_path, wrong, "?token=secret")
    for text in (server.url, wrong, DIGEST):
        assert text in str(caught.value)
    assert "secret" not in str(caught.value)
    assert files(tmp_path) == []
    assert server.ranges == [None]


def test_two_at_once_share_one_download(server: Server, tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(get(server, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(paths) == 3
    assert server.ranges == [None]


def test_an_unreachable_server_is_an_error_with_words(server: Server, tmp_path: Path) -> None:
    settings = DataSettings(format="cifar10", source="http://user:secret@127.0.0.1:1/a.tar.gz", digest=DIGEST)
    with pytest.raises(EdmError, match="download the file by hand") as caught:
        fetch(settings, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_page_to_log_in_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    server.pages = 8
    with pytest.raises(InputError, match="sent a web page, not the file"):
        get(server, tmp_path)
    assert len(server.ranges) == 1
    assert files(tmp_path) == []


def test_a_token_that_has_expired_is_said_at_once(server: Server, tmp_path: Path) -> None:
    server.failures = [403]
    with pytest.raises(InputError, match="answered 403") as caught:
        get(server, tmp_path, query="?token=secret")
    assert "expired" in caught.value.do_next
    assert "secret" not in str(caught.value)
    assert len(server.ranges) == 1
