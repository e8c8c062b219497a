import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edm2core.errors import StoreError
from edm2core.events import parse
from edm2core.plan.manifest import Ref
from edm2core.store import Store, leases, open_store
from edm2core.store.base import Entry
from edm2core.store.leases import Busy, Lease, acquire, holder
from edm2core.store.local import LocalStore
from edm2core.store.process import Process
from tests.waiting import wait_until

REF = Ref("trajectory", "0123456789abcdef0123")
FIRST = "leases/trajectory/0123456789abcdef0123/000001.json"


def pretend(store: Store, **changes: str | int) -> None:
    """The first generation is held by a process that differs from this one."""
    process = replace(Process.current(), **changes)
    store.create(FIRST, json.dumps({"owner": "", "process": asdict(process), "started": time.time()}).encode())


def test_a_second_worker_is_told_who_holds_it(store: Store) -> None:
    assert holder(store, REF) is None
    with acquire(store, REF, "first"):
        with pytest.raises(Busy) as caught:
            acquire(store, REF, "second")
        text = str(caught.value)
        assert f"pid {os.getpid()} on host " in text
        assert re.search(r"last beat [\d.]+ s ago", text)
        assert str(REF) in text
        assert not caught.value.permanent
        with acquire(store, Ref("trajectory", "another")) as other:
            assert other.generation == 1


def test_a_released_lease_is_free_and_the_next_generation_is_higher(store: Store) -> None:
    for generation in (1, 2, 3):
        with acquire(store, REF) as lease:
            assert lease.generation == generation
            last = holder(store, REF)
            assert last is not None
            assert last.alive
        last = holder(store, REF)
        assert last is not None
        assert last.released
        assert not last.alive
    assert len(list(store.list("leases/"))) == 2  # those before are cleared away


def test_a_restarted_owner_does_not_wait_for_itself_and_the_old_one_learns_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    old = acquire(store, REF, "job/pod-0")
    new = acquire(store, REF, "job/pod-0")
    assert new.generation == 2
    wait_until(lambda: old.lost)
    old.release()
    assert not new.lost
    last = holder(store, REF)
    assert last is not None
    assert (last.generation, last.alive) == (2, True)
    new.release()


def test_workers_without_an_owner_are_not_each_other(store: Store) -> None:
    with acquire(store, REF), pytest.raises(Busy):
        acquire(store, REF)


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({}, True),
        ({"begun": "1"}, False),  # the number was given to another process since
        ({"pid": 2**22 + 1}, False),
        ({"pid": 2**22 + 1, "host": "elsewhere"}, True),
        ({"pid": 2**22 + 1, "boot": "another"}, True),
        ({"pid": 2**22 + 1, "namespace": "pid:[1]"}, True),
        ({"pid": 2**22 + 1, "boot": ""}, True),
    ],
)
def test_only_a_process_known_to_be_gone_is_taken_over_at_once(store: Store, changes: dict[str, str | int], alive: bool) -> None:
    pretend(store, **changes)
    last = holder(store, REF)
    assert last is not None
    assert last.alive is alive
    if alive:
        with pytest.raises(Busy):
            acquire(store, REF)
    else:
        with acquire(store, REF) as lease:
            assert lease.generation == 2


def test_a_record_nobody_understands_is_waited_for_until_it_is_silent(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    local.create(FIRST, b"[1]")
    with pytest.raises(Busy):
        acquire(local, REF)
    monkeypatch.setattr(leases, "PATIENCE_S", 0.0)
    with acquire(local, REF) as lease:
        assert lease.generation == 2


HOLD = """
import sys, time
from edm2core.plan.manifest import Ref
from edm2core.store import leases, open_store
leases.BEAT_S = 0.05
lease = leases.acquire(open_store(sys.argv[1]), Ref.parse(sys.argv[2]))
print("held", flush=True)
while not lease.lost:
    time.sleep(0.01)
print("lost", flush=True)
"""


@pytest.fixture
def worker(local: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, local.uri, str(REF)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_process_of_this_host_is_not_waited_for(local: Store, worker: subprocess.Popen[str]) -> None:
    with pytest.raises(Busy, match=f"pid {worker.pid} "):
        acquire(local, REF)
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # dead, though nobody has waited for it
    with acquire(local, REF) as lease:
        assert lease.generation == 2


def silent_s(store: Store) -> float:
    last = holder(store, REF)
    assert last is not None
    return last.beat_age_s


def beat_of(store: Store) -> float:
    """When the lease's holder last gave a sign of life, by this machine's clock."""
    return time.time() - silent_s(store)


def test_a_silent_process_is_taken_over_and_learns_it(local: Store, worker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "PATIENCE_S", 0.5)
    first = beat_of(local)
    wait_until(lambda: beat_of(local) > first + 0.6)
    with pytest.raises(Busy):  # it beats
        acquire(local, REF)
    worker.send_signal(signal.SIGSTOP)
    wait_until(lambda: silent_s(local) > 0.5)
    with acquire(local, REF) as lease:
        assert lease.generation == 2
        worker.send_signal(signal.SIGCONT)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "lost\n"


def test_a_store_out_of_reach_is_warned_of_and_the_beat_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.02)
    beats: list[str] = []

    class Flaky(LocalStore):
        broken = False

        def write(self, path: str, data: bytes) -> None:
            if self.broken:
                raise StoreError("The store cannot be reached.")
            beats.append(path)
            super().write(path, data)

    store = Flaky(tmp_path)
    lease = acquire(store, REF)
    wait_until(lambda: len(beats) > 0)
    store.broken = True
    printed: list[str] = []

    def warned() -> bool:
        printed.append(capsys.readouterr().out)
        return "cannot be reached" in "".join(printed)

    wait_until(warned)
    assert all(parse(line) for line in "".join(printed).splitlines())
    store.broken, seen = False, len(beats)
    wait_until(lambda: len(beats) > seen)
    store.broken = True
    lease.release()  # does not raise: the work is done


def test_a_process_that_slept_while_others_held_the_lease_does_not_get_it(tmp_path: Path) -> None:
    others: list[Lease] = []

    class Slow(LocalStore):
        def create(self, path: str, data: bytes) -> bool:
            if not others:
                quick = LocalStore(tmp_path)
                acquire(quick, REF).release()
                acquire(quick, REF).release()
                others.append(acquire(quick, REF))
            return super().create(path, data)

    with pytest.raises(Busy):
        acquire(Slow(tmp_path), REF)
    others[0].release()


def test_of_many_threads_exactly_one_gets_it(store: Store) -> None:
    for race in range(3):
        start, won, busy = threading.Barrier(6), [], []

        def compete(race: int = race, start: threading.Barrier = start, won: list[Lease] = won, busy: list[Busy] = busy) -> None:
            start.wait()
            try:
                won.append(acquire(store, Ref("s", str(race))))
            except Busy as error:
                busy.append(error)

        threads = [threading.Thread(target=compete) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(busy)) == (1, 5)
        won[0].release()


RACE = """
import sys
from edm2core.plan.manifest import Ref
from edm2core.store import leases, open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
held = []
for race in range(20):
    try:
        held.append((race, leases.acquire(store, Ref("s", str(race)))))
    except leases.Busy:
        pass
print(*[race for race, _ in held], flush=True)
sys.stdin.readline()
"""


def test_of_many_processes_exactly_one_gets_it(local: Store) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, local.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    pipes = [(racer.stdin, racer.stdout) for racer in racers if racer.stdin and racer.stdout]
    for _, out in pipes:
        out.readline()
    for into, _ in pipes:
        into.write("go\n")
        into.flush()
    won = [race for _, out in pipes for race in out.readline().split()]
    for racer in racers:
        racer.communicate("end\n")
    assert sorted(map(int, won)) == list(range(20))


class _Aged(LocalStore):
    """Ages by a clock that the test turns."""

    now = 0.0

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written: dict[str, float] = {}

    def write(self, path: str, data: bytes) -> None:
        self.written[path] = self.now
        super().write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self.written.setdefault(path, self.now)
        return super().create(path, data)

    def list(self, prefix: str) -> Iterator[Entry]:
        return (entry._replace(age_s=self.now - self.written[entry.path]) for entry in super().list(prefix))


def test_a_lease_may_be_taken_over_after_sixty_silent_seconds_and_no_sooner(tmp_path: Path) -> None:
    store = _Aged(tmp_path)
    pretend(store, host="elsewhere")
    store.now = 59.9
    with pytest.raises(Busy, match="last beat 1 min 00 s ago"):
        acquire(store, REF)
    store.now = 60.0
    with acquire(store, REF) as lease:
        assert lease.generation == 2


class LeaseMachine(RuleBasedStateMachine):
    """At any time at most one lease is good, and the store agrees on which."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = _Aged(Path(self.folder.name))
        self.taken: list[Lease] = []
        self.owner, self.beat, self.released = "", -1e9, True

    def teardown(self) -> None:
        for lease in self.taken:
            lease.lost = True
            lease.release()
        self.folder.cleanup()

    @property
    def free(self) -> bool:
        return self.released or self.store.now - self.beat >= leases.PATIENCE_S

    @rule(owner=st.sampled_from(["", "a", "b"]))
    def take(self, owner: str) -> None:
        if self.free or (owner and owner == self.owner):
            self.taken.append(acquire(self.store, REF, owner))
            assert self.taken[-1].generation == len(self.taken)
            self.owner, self.beat, self.released = owner, self.store.now, False
        else:
            with pytest.raises(Busy):
                acquire(self.store, REF, owner)

    @rule(seconds=st.sampled_from([1, 30, 59, 60, 100]))
    def pass_time(self, seconds: int) -> None:
        self.store.now += seconds

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(min_value=0))
    def beat_once(self, which: int) -> None:
        index = which % len(self.taken)
        if not self.taken[index]._stop.is_set():
            leases._write_beat(self.store, REF, self.taken[index].generation, released=False)
            if index == len(self.taken) - 1:
                self.beat = self.store.now

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(min_value=0))
    def release(self, which: int) -> None:
        index = which % len(self.taken)
        if index == len(self.taken) - 1 and not self.released:
            self.released = True
        self.taken[index].release()

    @invariant()
    def agrees(self) -> None:
        last = holder(self.store, REF)
        assert (last is None) == (not self.taken)
        if last is not None:
            assert last.generation == len(self.taken)
            assert last.alive is not self.free


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_the_store_can_be_opened_by_uri_where_the_lease_was_taken(local: Store) -> None:
    with acquire(local, REF), pytest.raises(Busy):
        acquire(open_store(local.uri), REF)
