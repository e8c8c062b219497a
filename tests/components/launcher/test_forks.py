"""Forks behave as processes started one by one do."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from components.launcher.forks import Fork, Forks, begin, fork
from components.launcher.local import STAGE_MODULES
from tests.waiting import wait_until

PROGRAM = """\
import os, signal, sys
from edm2core.worker import signals
signals.die_with_parent()
print(__name__, sys.argv[1:], os.environ["COLOUR"], os.getpgrp() == os.getpid(), os.environ.get("OTHER"), flush=True)
if sys.argv[1] == "wait":
    signal.pause()
if sys.argv[1] == "fault":
    raise ValueError("a fault")
sys.exit(int(sys.argv[1]))
"""
DRIVER = """\
import os, signal
from components.launcher.forks import Forks, fork
forks = Forks([], dict(os.environ))
print(fork(forks.address, ["-m", "program", "wait"], dict(os.environ), 2, 2).pid, flush=True)
signal.pause()
"""


class Place:
    """A program, the process that forks it, and a log."""

    def __init__(self, folder: Path, at_start: str = "", modules: Sequence[str] = ()) -> None:
        (folder / "program.py").write_text(PROGRAM)
        (folder / "sitecustomize.py").write_text(at_start)
        path = os.pathsep.join([str(folder), str(Path(__file__).parents[3])])
        self.log, self.environment = folder / "log", {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLOUR": "red"}
        self.forks = Forks(modules, {**self.environment, "OTHER": "of the server alone"})

    def ordered(self, *arguments: str) -> Fork | None:
        with self.log.open("ab") as output:
            return fork(self.forks.address, ["-m", "program", *arguments], self.environment, output.fileno(), output.fileno())

    def start(self, *arguments: str) -> Fork:
        started = self.ordered(*arguments)
        assert started is not None
        return started

    def running(self) -> Fork:
        """A fork that has printed its line."""
        started = self.start("wait")
        wait_until(lambda: "wait" in self.log.read_text())
        return started


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("forks"))
    yield place
    place.forks.kill()


@pytest.fixture
def shared(started: Place, tmp_path: Path) -> Place:
    """One for several tests. Each test has a log of its own."""
    started.log = tmp_path / "log"
    return started


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """One for a test that ends or changes it."""
    place = Place(tmp_path)
    yield place
    place.forks.kill()


def test_a_fork_is_its_program_with_its_own_environment_group_and_log(shared: Place) -> None:
    assert shared.start("3", "x").wait() == 3
    assert shared.log.read_text() == "__main__ ['3', 'x'] red True None\n"


def test_codes_go_to_their_forks_and_the_log_is_added_to(shared: Place) -> None:
    forks = [shared.start(str(code)) for code in (0, 7, 0, 5)]
    assert [fork.wait() for fork in forks] == [0, 7, 0, 5]
    assert len(shared.log.read_text().splitlines()) == 4


def test_an_exception_is_code_1_with_its_traceback_in_the_log(shared: Place) -> None:
    assert shared.start("fault").wait() == 1
    assert "ValueError: a fault" in shared.log.read_text()


def test_a_signal_to_its_group_ends_it(shared: Place) -> None:
    running = shared.running()
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGTERM)
    assert running.wait() == -signal.SIGTERM


def test_where_the_forking_process_dies_its_forks_end_and_none_is_started(place: Place) -> None:
    running = place.running()
    place.forks.kill()
    assert running.wait() == -signal.SIGKILL
    wait_until(lambda: gone(running.pid))
    assert place.ordered("0") is None


def ends_with_its_driver(place: Place, program: str, *arguments: str) -> None:
    """A fork whose number the program prints ends when the program is killed."""
    driver = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=place.environment)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    assert not gone(pid)
    driver.kill()
    driver.wait()
    wait_until(lambda: gone(pid))


def test_forks_do_not_outlive_who_started_them(place: Place) -> None:
    ends_with_its_driver(place, DRIVER)


def test_modules_that_stages_import_leave_cuda_untouched(tmp_path: Path) -> None:
    place = Place(tmp_path, modules=STAGE_MODULES)
    (tmp_path / "program.py").write_text("import sys, torch\nsys.exit(3 if torch.cuda._is_in_bad_fork() else 4)")
    wait_until(lambda: "libtorch_python" in Path(f"/proc/{place.forks._server.pid}/maps").read_text())
    assert place.start("0").wait() == 4
    place.forks.kill()


@pytest.mark.timeout(60)
def test_an_order_that_breaks_off_hinders_no_other(shared: Place) -> None:
    with socket.socket(socket.AF_UNIX) as half:
        half.connect(shared.forks.address)
    assert shared.start("3").wait() == 3


def test_a_fork_ends_with_who_ordered_it(place: Place) -> None:
    program = "import os, sys, time\nfrom components.launcher.forks import fork\n"
    program += (
        "ordered = fork(sys.argv[1], ['-m', 'program', 'wait'], dict(os.environ), 2, 2)\nprint(ordered.pid, flush=True); time.sleep(99)"
    )
    ends_with_its_driver(place, program, place.forks.address)


def test_without_a_forking_process_the_same_is_started_anew(place: Place) -> None:
    for address in (place.forks.address, "/missing"):
        with place.log.open("ab") as log:
            process = begin(address, ["-m", "program", "3"], place.environment, log.fileno(), log.fileno())
        assert process.wait() == 3
    assert place.log.read_text() == "__main__ ['3'] red True None\n" * 2


@pytest.mark.timeout(60)
def test_where_the_system_refuses_to_fork_none_is_started(tmp_path: Path) -> None:
    no_fork = "import os\ndef fork(): raise BlockingIOError(11, 'no more processes')\nos.fork = fork\n"
    place = Place(tmp_path, at_start=no_fork)
    try:
        assert place.ordered("0") is None
    finally:
        place.forks.kill()
