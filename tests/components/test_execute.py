"""A task's path with real processes on this machine."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.execute import LOSSES, NO_LOG, RESTARTS, TaskFailedError, execute
from components.launcher.local import LocalBackend
from components.launcher.spec import JobSpec, Status, spec_of
from edm2core.errors import EdmError, Interrupted
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store import Store, open_store
from edm2core.store.leases import acquire
from edm2core.store.results import load
from tests.waiting import wait_until

Events = list[dict[str, Any]]
RUN = """
def run():
    from edm2core.worker.main import main
    main('prepare', lambda work: (work.out / 'train_images.npy').write_bytes(b'images'))
"""


@pytest.fixture
def prepare(tmp_path: Path) -> Task:
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: []\nprobe: false\n")
    return plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


class Place:
    """Executes on this machine, keeping what was shown."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.backend = LocalBackend(lambda spec: folder / f"{spec.name}.log", 1)
        self.events: Events = []
        self.stop = threading.Event()

    def execute(self, task: Task, program: str = "") -> tuple[Any, bool]:
        """Do the task; `program` stands in for its stage and may commit a result by `run()`."""
        spec = spec_of(task, self.store.uri)
        if program:
            mark = f"mark = pathlib.Path({str(self.folder / 'mark')!r})"
            (self.folder / "stand_in.py").write_text(f"import os, pathlib, signal, sys\n{RUN}{mark}\n{program}\n")
            spec = JobSpec(**{**vars(spec), "module": "stand_in"})
        return execute(task, self.store, self.backend, spec, run="test", show=lambda _, event: self.events.append(event), stop=self.stop)


@pytest.fixture
def place(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Place(tmp_path, store)


def test_a_task_is_done_once(place: Place, prepare: Task) -> None:
    first, reused = place.execute(prepare)
    assert not reused
    again, reused = place.execute(prepare)
    assert (again, reused) == (first, True)


def test_a_process_that_somebody_has_stopped_is_said_to_be_and_goes_on_when_continued(place: Place, prepare: Task) -> None:
    def go_on() -> None:
        wait_until(lambda: any("kill -CONT" in str(event.get("message")) for event in place.events))
        os.kill(int((place.folder / "mark").read_text()), signal.SIGCONT)

    threading.Thread(target=go_on, daemon=True).start()
    place.execute(prepare, "mark.write_text(str(os.getpid()))\nos.kill(os.getpid(), signal.SIGSTOP)\nrun()")
    assert [event for event in place.events if event["kind"] == "waiting"]


class Late(LocalBackend):
    """Has what a job printed only some time after the job's result, as a cluster may."""

    ended: Callable[[], bool]
    asked_since = 0

    def logs(self, name: str) -> list[str]:
        self.asked_since += self.ended()
        return super().logs(name) if self.asked_since > 5 else []


def test_lines_that_come_after_the_result_are_not_lost(place: Place, prepare: Task) -> None:
    place.backend = late = Late(lambda spec: place.folder / f"{spec.name}.log", 1)
    late.ended = lambda: load(place.store, prepare.ref) is not None
    place.execute(prepare, "import atexit\natexit.register(signal.pause)\nrun()")
    place.backend.kill_all()
    assert "commit" in [event["kind"] for event in place.events]


def test_a_killed_process_is_started_again(place: Place, prepare: Task) -> None:
    manifest, _ = place.execute(prepare, "if not mark.exists():\n    mark.touch(); os.kill(os.getpid(), signal.SIGKILL)\nrun()")
    assert manifest.key == prepare.key
    assert any("SIGKILL" in event.get("message", "") for event in place.events)


class Unsteady(LocalBackend):
    """A place that takes a job's processes away again and again, as it says, and says so once at each look."""

    taken, lost = 0, True

    def poll(self, name: str) -> Status:
        self.taken += 1
        return Status("running", "pods were lost", None, self.taken, self.lost)


@pytest.mark.parametrize(("lost", "times"), [(True, LOSSES), (False, RESTARTS)])
def test_what_is_taken_away_may_be_started_more_often_than_what_fails_by_itself(
    place: Place, prepare: Task, lost: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.execute.POLL_S", 0.0)
    place.backend = unsteady = Unsteady(lambda spec: place.folder / f"{spec.name}.log", 1)
    unsteady.lost = lost
    with pytest.raises(TaskFailedError, match=f"{times + 1} times without a newer state"):
        place.execute(prepare, "signal.pause()")
    unsteady.kill_all()


@pytest.mark.slow
def test_where_nothing_was_printed_no_log_is_spoken_of(place: Place, prepare: Task) -> None:
    with pytest.raises(TaskFailedError, match="SIGKILL") as caught:
        place.execute(prepare, "os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.lines == []
    assert caught.value.do_next == NO_LOG


def test_a_process_that_keeps_dying_fails_the_task_with_its_last_lines(place: Place, prepare: Task) -> None:
    with pytest.raises(TaskFailedError, match="without a newer state") as caught:
        place.execute(prepare, "print('about to die', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.lines[-1] == "about to die"


def test_an_error_of_its_own_fails_the_task_at_once_with_the_reason(place: Place, prepare: Task) -> None:
    damaged = Task(**{**vars(prepare), "settings": {**prepare.settings, "test_share": 7.0}})
    with pytest.raises(TaskFailedError) as caught:
        place.execute(damaged)
    assert prepare.title in caught.value.what
    assert "test_share" in caught.value.what
    assert not [line for line in caught.value.lines if "test_share" in line]  # said once


def test_a_later_run_neither_repeats_what_an_earlier_one_printed_nor_blames_its_failure(place: Place, prepare: Task) -> None:
    """Both append to the log of the task's one run."""
    program = "from edm2core.events import emit\nemit('failed', what='the {} reason')\nprint('{} lines')\nsys.exit(1)"
    with pytest.raises(TaskFailedError, match="the first reason"):
        place.execute(prepare, program.format("first", "first"))
    later = Place(place.folder, place.store)
    with pytest.raises(TaskFailedError, match="the second reason"):
        later.execute(prepare, program.format("second", "second"))
    assert [event["line"] for event in later.events if event["kind"] == "line"] == ["second lines"]
    (log,) = place.folder.glob("*.log")
    assert "first lines" in log.read_text()


def test_exit_code_0_without_a_manifest_is_no_success(place: Place, prepare: Task) -> None:
    with pytest.raises(TaskFailedError, match="without"):
        place.execute(prepare, "sys.exit(0)")


def test_a_process_that_a_memory_limit_ends_is_said_to_lack_memory(place: Place, prepare: Task) -> None:
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\nimport torch"
    with pytest.raises(TaskFailedError, match="there was not enough memory") as caught:
        place.execute(prepare, limited)
    assert "ulimit -v" in caught.value.do_next


def test_a_second_run_waits_for_the_first_and_says_for_whom(place: Place, prepare: Task, store: Store) -> None:
    lease = acquire(store, prepare.ref)

    def release_once_waited_for() -> None:
        wait_until(lambda: [event for event in place.events if event["kind"] == "waiting"])
        lease.release()

    threading.Thread(target=release_once_waited_for, daemon=True).start()
    _, reused = place.execute(prepare, "run()")
    assert not reused
    assert any(event["kind"] == "waiting" and "pid" in event["message"] for event in place.events)


def test_a_result_that_lost_a_file_is_named_not_used(place: Place, prepare: Task, tmp_path: Path) -> None:
    manifest, _ = place.execute(prepare, "run()")
    (tmp_path / "store" / manifest.path("train_images.npy")).unlink()
    with pytest.raises(EdmError, match=r"train_images\.npy is missing"):
        place.execute(prepare)


def test_a_stop_ends_the_waiting(place: Place, prepare: Task) -> None:
    mark = place.folder / "mark"
    threading.Thread(target=lambda: wait_until(mark.exists) and place.stop.set(), daemon=True).start()
    with pytest.raises(Interrupted):
        place.execute(prepare, "mark.touch(); signal.pause()")
    place.backend.stop_all(0.1)
