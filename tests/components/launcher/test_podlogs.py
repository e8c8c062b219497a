"""Reading pods' output from an API server whose connections break and whose pods are replaced."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from components.launcher.job_kinds.pytorchjob import PyTorchJob
from components.launcher.log_store import LogRecord, read_record
from components.launcher.podlogs import PodLogs
from edm2core.errors import StoreError
from edm2core.store import Store, open_store

Object = dict[str, Any]


def stamped(second: int, fraction: str, text: str) -> bytes:
    return f"2026-01-01T00:00:{second:02d}.{fraction}Z {text}\n".encode()


OUTPUT = [stamped(1, "1", "one"), stamped(1, "25", "two"), stamped(1, "25", "three"), stamped(2, "000000001", "four")]


class Response(urllib3.HTTPResponse):
    def __init__(self, data: bytes, broken: bool) -> None:
        super().__init__(preload_content=False)
        self._data, self._broken = data, broken

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        for start in range(0, len(self._data), 7):
            yield self._data[start : start + 7]
        if self._broken:
            raise OSError("connection reset")


class Server:
    """Pods by name; each request for a log is cut off after as many bytes as `cuts` says."""

    def __init__(self, output: list[bytes], cuts: list[int]) -> None:
        self.output, self.cuts, self.requests = output, cuts, list[str]()
        self.pods = {"j-worker-0": self._pod("first-uid")}

    def _pod(self, uid: str) -> Object:
        state = {"terminated": {"exitCode": 0}}
        return {"metadata": {"name": "j-worker-0", "uid": uid}, "status": {"containerStatuses": [{"name": "pytorch", "state": state}]}}

    def replace(self) -> None:
        self.pods["j-worker-0"] = self._pod("second-uid")

    def pod(self, name: str) -> Object | None:
        return self.pods.get(name)

    def log(self, pod: str, container: str, since: str, follow: bool) -> Response:
        self.requests.append(since)
        data = b"".join(line for line in self.output if line[:19].decode() >= since[:19])
        cut = self.cuts.pop(0) if self.cuts else None
        return Response(data[:cut], cut is not None)


def read(server: Server, record: LogRecord, ranks: bool = False) -> list[str]:
    logs = PodLogs(server, PyTorchJob(), record, ranks)  # type: ignore[arg-type]
    logs.watch(list(server.pods.values()))
    logs.drain(10)
    logs.close()
    return logs.take()


@pytest.fixture(autouse=True)
def no_pause_before_reading_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.launcher.podlogs.RETRY_S", 0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.fixture
def record(store: Store) -> LogRecord:
    return LogRecord(store, "unread")


def test_every_line_comes_once_and_says_which_pod_it_is_of(record: LogRecord) -> None:
    assert read(Server(OUTPUT, []), record) == [f"[pod 0] {word}" for word in ("one", "two", "three", "four")]


def test_lines_of_a_job_whose_ranks_mark_them_and_events_stay_as_they_are(store: Store) -> None:
    event = '@edm2 {"kind":"start"}'
    lines = [stamped(1, "1", "[rank 3] x"), stamped(2, "1", event)]
    assert read(Server(lines, []), LogRecord(store, "many"), ranks=True) == ["[rank 3] x", event]
    assert read(Server(lines[1:], []), LogRecord(store, "one")) == [event]


@pytest.mark.parametrize("first", range(0, sum(map(len, OUTPUT)) + 1, 5))
def test_wherever_connections_break_no_line_is_lost_or_repeated(first: int, record: LogRecord) -> None:
    server = Server(OUTPUT, [first, 40])
    assert read(server, record) == [f"[pod 0] {word}" for word in ("one", "two", "three", "four")]
    assert len(server.requests) == 3


def test_a_later_follower_goes_on_where_the_record_ends(store: Store) -> None:
    assert len(read(Server(OUTPUT[:2], []), LogRecord(store, "logs"))) == 2
    assert read(Server(OUTPUT, []), LogRecord(store, "logs")) == ["[pod 0] three", "[pod 0] four"]
    assert [line.text for line in read_record(store, "logs")] == ["one", "two", "three", "four"]


def test_lines_that_two_followers_kept_count_once(store: Store) -> None:
    server = Server(OUTPUT, [])
    both = [PodLogs(server, PyTorchJob(), LogRecord(store, "logs")) for _ in range(2)]  # type: ignore[arg-type]
    for logs in both:
        logs.watch(list(server.pods.values()))
    for logs in both:
        logs.drain(10)
        logs.close()
    assert [line.text for line in read_record(store, "logs")] == ["one", "two", "three", "four"]


def test_a_replaced_pod_is_not_read_under_its_predecessors_name(record: LogRecord) -> None:
    server = Server(OUTPUT, [])
    logs = PodLogs(server, PyTorchJob(), record)  # type: ignore[arg-type]
    before = list(server.pods.values())
    server.replace()
    logs.watch(before)
    logs.drain(10)
    assert logs.take() == []
    logs.watch(list(server.pods.values()))
    logs.drain(10)
    assert len(logs.take()) == 4
    logs.close()


def test_what_the_store_did_not_take_is_kept_for_the_next_time(store: Store) -> None:
    record = LogRecord(_Refusing(store), "logs")  # type: ignore[arg-type]
    read(Server(OUTPUT, []), record)
    assert read_record(store, "logs") == []
    record.flush()
    assert len(read_record(store, "logs")) == 4


class _Refusing:
    """A store that refuses the first write."""

    def __init__(self, store: Store) -> None:
        self._store, self._refused = store, False

    def write(self, path: str, data: bytes) -> None:
        if not self._refused:
            self._refused = True
            raise StoreError("The store is full.")
        self._store.write(path, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_long_log_is_kept_in_chunks(store: Store) -> None:
    record = LogRecord(store, "logs")
    lines = [stamped(number % 60, f"{number:09d}", "x" * 5000) for number in range(180)]
    lines.sort()
    read(Server(lines, []), record)
    record.flush()
    assert len(read_record(store, "logs")) == 180
