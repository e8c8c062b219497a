"""The web server: what it shows, that it only shows, and that nothing leads out of what it may show."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from components.report.write import write_report
from edm2core.errors import InputError
from edm2core.plan.tasks import trajectory_ref
from edm2core.store import Store
from edm2core.store.leases import acquire
from edm2core.store.local import LocalStore
from edm2core.store.runs import Run, record
from pipelines.look.runs import Look, Overview
from pipelines.look.server import Server, listen
from tests.edm2core.report.conftest import Fake
from tests.edm2core.store.conftest import seaweedfs, seaweedfs_server  # noqa: F401

HOSTILE = "</td><script>alert(1)</script>\"'&{{ 7777*7777 }}"


class Browser:
    """Asks a server, sending just what it is told to."""

    def __init__(self, server: Server) -> None:
        self.port = server.port

    def ask(self, target: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"localhost:{self.port}", **{n.replace("_", "-"): v for n, v in headers.items()}}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        try:
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def text(self, target: str) -> str:
        status, _, body = self.ask(target)
        assert status == 200, (target, body)
        return body.decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """An experiment of which the probes are missing, recorded as a run; beside it what nobody should see."""
    folder = tmp_path_factory.mktemp("served")
    fake = Fake(folder).make(lambda task: task.stage == "probe")
    record(Run("digits-ceg-1", fake.store), fake.name, fake.text, fake.tasks, {})
    (folder / "secret.txt").write_text("SECRET")
    root = fake.store.root
    for path in ("leases/snapshot/k/000001.json", "sources/abc", "scratch/trajectory/k/state", "work/x", "secret.txt"):
        fake.store.write(path, b"SECRET")
    os.symlink(folder / "secret.txt", root / "runs" / "digits-ceg-1" / "leak.txt")
    os.symlink(folder, root / "runs" / "outside")
    return fake


@pytest.fixture(scope="module")
def served(made: Fake) -> Iterator[Server]:
    yield from _served(made.store)


def _served(store: Store) -> Iterator[Server]:
    server = listen(store, "localhost", 0, exactly=True)
    threading.Thread(target=server.run, daemon=True).start()
    yield server
    server.stop()


@pytest.fixture
def browser(served: Server) -> Browser:
    return Browser(served)


def test_the_list_names_every_run_and_how_far_it_is(browser: Browser, made: Fake) -> None:
    page = browser.text("/")
    assert 'href="/runs/digits-ceg-1/"' in page
    assert f"30 of {len(made.tasks)}" in page
    (run,) = json.loads(browser.text("/api/runs"))
    assert (run["id"], run["done"], run["tasks"]) == ("digits-ceg-1", 30, len(made.tasks))


def test_a_run_shows_its_tasks_values_pictures_and_snapshots_files(browser: Browser, made: Fake) -> None:
    page = browser.text("/runs/digits-ceg-1/")
    snapshot = made.find("snapshot", recipe="digits/E", epoch=60)
    assert f'href="/results/{snapshot.ref}/"' in page
    assert "fd_digits " in page
    assert "10 waiting" in page
    assert page.count("<img ") == 3  # the newest grid of each recipe
    assert "ema-fixed.safetensors" in page
    assert "leak.txt" not in page
    states = {task["task"]: task["state"] for task in json.loads(browser.text("/api/runs/digits-ceg-1"))["tasks"]}
    assert states[str(snapshot.ref)] == "done"
    assert browser.text("/runs/digits-ceg-1/?part=live").lstrip().startswith("<p")


def test_runs_and_values_show_what_reports_found_and_whom_it_may_be_held_against(tmp_path: Path) -> None:
    one = Fake(tmp_path).make()
    other = Fake(tmp_path / "other", one.text.replace("count: 2000", "count: 1000")).make()
    for name, fake in (("one", one), ("other", other)):
        record(Run(name, one.store), fake.name, fake.text, fake.tasks, {})
        write_report(Run(name, fake.store), fake.name, fake.tasks, {}, "")
    overviews = [json.loads(fake.store.read(f"runs/{name}/overview.json")) for name, fake in (("one", one), ("other", other))]
    keys = [{(value["metric"], value["comparable"]) for value in overview["values"]} for overview in overviews]
    assert {metric for metric, _ in keys[0] & keys[1]} == {"probe_accuracy"}  # the FDs are of different numbers of images
    for server in _served(one.store):
        browser = Browser(server)
        assert "One seed: no claim. FD" in browser.text("/")
        values = browser.text("/values/")
        assert values.count("<tr data-group=") == 2 * 3
        assert 'data-value="' in values
        assert "One seed: no claim." in browser.text("/runs/one/")


def test_a_damaged_overview_is_no_overview(tmp_path: Path) -> None:
    fake = Fake(tmp_path).make()
    record(Run("one", fake.store), fake.name, fake.text, fake.tasks, {})
    for damaged in (b"{", b"[]", b'{"verdicts": [1], "values": []}'):
        fake.store.write("runs/one/overview.json", damaged)
        assert Look(fake.store).overview("one") == Overview()


def test_every_stage_and_result_has_a_page(browser: Browser, made: Fake) -> None:
    assert 'href="/results/metrics/"' in browser.text("/results/")
    metrics = made.find("metrics", recipe="digits/C", epoch=20)
    assert metrics.title in browser.text("/results/metrics/")
    page = browser.text(f"/results/{metrics.ref}/")
    assert f"edm2 reproduce {made.store.uri}/results/{metrics.ref}" in page
    for ref in metrics.inputs.values():
        assert f'href="/results/{ref}/"' in page


def test_files_are_given_whole_and_in_parts(browser: Browser, made: Fake) -> None:
    path = f"/store/{made.find('snapshot').ref.manifest}"
    whole = made.store.read(path.removeprefix("/store/"))
    status, headers, body = browser.ask(path)
    assert (status, body, headers["content-type"]) == (200, whole, "application/json")
    for asked, part in {"bytes=2-5": whole[2:6], "bytes=7-": whole[7:], "bytes=-4": whole[-4:], "bytes=0-99999999": whole}.items():
        status, headers, body = browser.ask(path, Range=asked)
        assert (status, body) == (206, part)
        assert headers["content-range"].endswith(f"/{len(whole)}")
    assert browser.ask(path, Range=f"bytes={len(whole)}-")[0] == 416
    status, headers, body = browser.ask(path, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(whole)), b"")


def test_what_no_browser_can_show_is_saved_and_a_report_cannot_reach_the_server(browser: Browser, made: Fake) -> None:
    manifest = made.store.read(made.find("snapshot").ref.manifest)
    attempt = json.loads(manifest)["attempt"]
    _, headers, _ = browser.ask(f"/store/{made.find('snapshot').ref.folder}/{attempt}/ema-fixed.safetensors")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment")
    made.store.write("runs/digits-ceg-1/report.html", b"<script>1</script>")
    _, headers, _ = browser.ask("/store/runs/digits-ceg-1/report.html")
    assert headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_allowed(browser: Browser, method: str) -> None:
    status, headers, _ = browser.ask("/", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "target",
    [
        "/store/../secret.txt",
        "/store/runs/../../secret.txt",
        "/store/runs/%2e%2e/%2e%2e/secret.txt",
        "/store/runs/%252e%252e/%252e%252e/secret.txt",
        "/store/runs/..%2f..%2fsecret.txt",
        "/store/runs/digits-ceg-1/..%5c..%5csecret.txt",
        "/store//etc/passwd",
        "/store/%2fetc%2fpasswd",
        "/store/runs/digits-ceg-1/%00",
        "/store/runs/digits-ceg-1/leak.txt",
        "/store/runs/outside/secret.txt",
        "/runs/outside/",
        "/runs/..%2f..%2f/",
        "/results/../",
        "/results/snapshot/..%2f..%2f../",
        "/store/leases/snapshot/k/000001.json",
        "/store/sources/abc",
        "/store/scratch/trajectory/k/state",
        "/store/work/x",
        "/store/secret.txt",
        "/assets/../server.py",
        "/assets/base.html",
        "http://localhost/../secret.txt",
        "/%ff",
    ],
)
def test_nothing_leads_out_of_what_may_be_seen(browser: Browser, target: str) -> None:
    status, _, body = browser.ask(target)
    assert status == 404
    assert b"SECRET" not in body
    assert b"root:" not in body


def test_a_name_that_points_here_is_not_answered(browser: Browser) -> None:
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.evil.example"):
        assert browser.ask("/", Host=host)[0] == 421
    for host in ("localhost", f"localhost:{browser.port}", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        assert browser.ask("/", Host=host)[0] == 200


def test_a_request_of_http_1_0_needs_no_name(browser: Browser) -> None:
    with socket.create_connection(("127.0.0.1", browser.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_absurd_numbers_are_bad_requests(browser: Browser, made: Fake) -> None:
    huge = "9" * 5000
    assert browser.ask(f"/results/metrics/?page={huge}")[0] == 400
    assert browser.ask("/results/metrics/?page=-1")[0] == 400
    assert browser.ask("/results/metrics/?page=two")[0] == 400
    assert browser.ask("/results/metrics/?page=999999")[0] == 200  # the last there is
    path = f"/store/{made.find('snapshot').ref.manifest}"
    for asked in (f"bytes={huge[:100]}-", f"bytes=0-{huge[:100]}", f"bytes=-{huge[:100]}"):
        assert browser.ask(path, Range=asked)[0] == 400
    assert browser.ask(path, Range="bytes=²-³")[0] == 200  # no range at all, which is to be ignored
    assert browser.ask(f"/{huge}")[0] == 404


def test_many_at_once_are_all_answered(served: Server) -> None:
    """All connect before any is answered, and each gets its page."""
    clients = [socket.create_connection(("127.0.0.1", served.port), timeout=60) for _ in range(200)]
    for client in clients:
        client.sendall(b"GET /results/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = [b"".join(iter(partial(client.recv, 65536), b"")) for client in clients]
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert len({answer.partition(b"\r\n\r\n")[2] for answer in answers}) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_requests_body_is_never_read_as_the_next_request(served: Server, method: str) -> None:
    inner = b"GET /assets/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
    outer = f"{method} /results/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(inner)}\r\n\r\n".encode()
    last = b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        client.sendall(outer + inner + last)
        answers = b"".join(iter(partial(client.recv, 65536), b""))
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"text/css" not in answers
    assert b"application/json" in answers


def test_what_is_the_same_is_not_sent_again(browser: Browser) -> None:
    _, headers, _ = browser.ask("/results/")
    status, _, body = browser.ask("/results/", If_None_Match=headers["etag"])
    assert (status, body) == (304, b"")


def test_pages_run_no_script_but_their_own(browser: Browser) -> None:
    _, headers, body = browser.ask("/runs/digits-ceg-1/")
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert b"<script>" not in body
    assert b" style=" not in body


def test_what_stands_in_a_store_is_text(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    tasks = [replace(task, title=HOSTILE) for task in fake.tasks]
    record(Run("hostile", fake.store), HOSTILE, fake.text, tasks, {})
    fake.commit(fake.find("prepare"), {"note": HOSTILE})
    Run("hostile", fake.store).log({"kind": "failed", "task": str(fake.tasks[1].ref), "error": HOSTILE})
    for server in _served(fake.store):
        browser = Browser(server)
        for page in ("/", "/runs/hostile/", f"/results/{fake.find('prepare').ref}/"):
            text = browser.text(page)
            assert "<script>alert" not in text
            assert "60481729" not in text


def test_a_running_task_says_how_far_it_is(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    run = Run("going", fake.store)
    record(run, fake.name, fake.text, fake.tasks, {})
    first, second = [task for task in fake.tasks if task.stage == "snapshot"][:2]
    assert trajectory_ref(first) == trajectory_ref(second)
    log = run.log_path(first)
    log.parent.mkdir(parents=True)
    log.write_text('a line\n@edm2 {"kind":"progress","done":5,"total":20,"epoch":5.0,"loss":0.25}\n')
    with acquire(fake.store, trajectory_ref(first)):
        for server in _served(fake.store):
            browser = Browser(server)
            page = browser.text("/runs/going/?part=live")
            assert "25 % · epoch 5 · loss 0.25" in page
            assert page.count("state now") == 3  # the run, the task under Now and in the table: a training works on its first snapshot
            lines = browser.text(f"/runs/going/logs/snapshot/{second.key}")
            assert "a line\n" in lines
            assert "25%  epoch 5 · loss 0.25" in lines
            assert "running" in browser.text("/")


def test_a_run_of_another_version_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("runs/later/plan.json", b'{"name": "later", "tasks": [{"stage": "dream"}]}')
    for server in _served(store):
        browser = Browser(server)
        assert "damaged" in browser.text("/")
        assert "another version" in browser.text("/runs/later/")
        assert "another version" in json.loads(browser.text("/api/runs/later"))["damaged"][0]


def test_whatever_record_of_a_run_is_damaged_its_page_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    fake = Fake(tmp_path).make(lambda task: task.stage == "probe")
    run = Run("one", fake.store)
    record(run, fake.name, fake.text, fake.tasks, {})
    record(Run("other", fake.store), fake.name, fake.text, fake.tasks, {})
    run.log({"kind": "failed", "task": str(fake.find("probe", recipe="digits/E", epoch=60).ref), "error": "out of memory"})
    acquire(fake.store, fake.find("probe", recipe="digits/E", epoch=20).ref)._stop.set()  # at work
    (lease,) = [entry.path for entry in fake.store.list("leases/probe/") if entry.path.endswith(".json")]
    (events,) = [entry.path for entry in fake.store.list("runs/one/events/")]
    for path in (lease, events, "runs/one/summary.json", "runs/one/plan.json"):
        data = fake.store.read(path)
        for damaged in (data[: len(data) // 2], data[:9] + bytes([data[9] ^ 1]) + data[10:], b""):
            fake.store.write(path, damaged)
            for server in _served(fake.store):
                browser = Browser(server)
                assert 'href="/runs/other/"' in browser.text("/")
                page = browser.text("/runs/one/")
                if damaged or path != events:  # nothing was logged, as far as an empty file says
                    assert "Damaged records" in page, (path, damaged)
                    named = json.loads(browser.text("/api/runs/one"))["damaged"]
                    assert any(path.rsplit("/", 1)[1] in words or "plan" in words for words in named)
        fake.store.write(path, data)
    for server in _served(fake.store):
        assert "Damaged records" not in Browser(server).text("/runs/one/")


def test_a_port_in_use_is_named_or_the_next_one_taken(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="already"):
            listen(store, "127.0.0.1", port, exactly=True)
        server = listen(store, "127.0.0.1", port, exactly=False)
        assert server.port > port
    with pytest.raises(InputError, match="no address of this machine"):
        listen(store, "192.0.2.1", 0, exactly=True)
    with pytest.raises(InputError, match="no address of this machine"):
        listen(store, "no.such.host.invalid", 0, exactly=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_ends_quietly(made: Fake, number: int) -> None:
    command = [sys.executable, "-m", "pipelines.cli.main", "serve", made.store.uri, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "is at http://localhost:" in process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "", "")


def test_an_address_that_is_open_to_others_is_warned_of_and_a_missing_store_named(made: Fake, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli.main", "serve"]
    process = subprocess.Popen([*command, made.store.uri, "--host", "0.0.0.0", "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "can read the whole store" in process.stderr.readline()
    process.terminate()
    process.wait(60)
    ran = subprocess.run([*command, str(tmp_path / "ghost")], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "no store here" in ran.stderr


def test_a_store_in_a_bucket_is_shown_like_a_folder(tmp_path: Path, seaweedfs: Store) -> None:  # noqa: F811
    fake = Fake(tmp_path)
    task = fake.find("snapshot")
    fake.commit(task)
    for entry in fake.store.list("results/"):
        seaweedfs.write(entry.path, fake.store.read(entry.path))
    run = Run("far", seaweedfs)
    record(run, fake.name, fake.text, fake.tasks, {})
    for server in _served(seaweedfs):
        browser = Browser(server)
        assert "1 of 40" in browser.text("/")
        assert f'href="/results/{task.ref}/"' in browser.text("/runs/far/")
        whole = seaweedfs.read(task.ref.manifest)
        assert browser.ask(f"/store/{task.ref.manifest}")[2] == whole
        status, _, body = browser.ask(f"/store/{task.ref.manifest}", Range="bytes=10-19")
        assert (status, body) == (206, whole[10:20])
        assert browser.ask("/store/runs/far/../../x")[0] == 404
