"""The program around torchrun, with real processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.launcher.entry import verdict
from components.launcher.forks import Forks
from components.launcher.rank import supervise
from components.launcher.torchrun import TORCHRUN, _meeting_place
from tests.waiting import wait_until

Start = Callable[..., subprocess.Popen[str]]
WAITING = """
def work():
    while not signals.asked(): time.sleep(.02)
    sys.exit(143)

def work_deaf_to_signals():
    while True: signal.pause()
"""


QUICK = """
import sys
from types import SimpleNamespace
from components.launcher import entry
address, pid = sys.argv.pop(1), int(sys.argv.pop(1))
entry.Forks = lambda modules, environment: SimpleNamespace(address=address, pid=pid)
sys.exit(entry.main())
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules, each of which stands in for a stage."""
    return tmp_path_factory.mktemp("stand_ins")


@pytest.fixture(scope="module")
def forks(stand_ins: Path) -> Iterator[Forks]:
    """Has imported torchrun, for all entry programs but those that are about their own forking process."""
    forks = Forks([TORCHRUN], {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(stand_ins)])})
    yield forks
    forks.kill()


@pytest.fixture
def start(tmp_path: Path, stand_ins: Path, forks: Forks) -> Start:
    """Starts the entry program around a stand-in for a stage, which is given its rank and may wait for a SIGTERM.

    With `own_forks` it is the program as a job runs it, which imports torchrun into a forking process of its own.
    """

    def start(program: str, *options: str, processes: int = 2, own_forks: bool = False) -> subprocess.Popen[str]:
        module = f"stand_in_{len(list(stand_ins.glob('*.py')))}"
        (stand_ins / f"{module}.py").write_text(
            "import os, pathlib, signal, sys, time\nfrom edm2core.worker import signals\nfrom edm2core.worker.heartbeat import Heartbeat\n"
            f"signals.install()\nrank, here = int(os.environ.get('RANK', '0')), pathlib.Path({str(tmp_path)!r})\n"
            f"(here / f'pid-{{rank}}').write_text(str(os.getpid()))\n{WAITING}\n{program}\n"
        )
        entry = ["-m", "components.launcher.entry"] if own_forks else ["-c", QUICK, forks.address, str(forks.pid)]
        return subprocess.Popen(
            [sys.executable, *entry, "--nproc-per-node", str(processes), *options, "-m", module, "argument"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(stand_ins)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def end(entry: subprocess.Popen[str], seconds: float = 240) -> tuple[int, list[str]]:
    output = entry.communicate(timeout=seconds)[0]
    return entry.returncode, output.splitlines()


def running(folder: Path, count: int = 2) -> list[int]:
    """The pids of the stand-ins, once there are that many."""

    def pids() -> list[int]:
        found = [int(text) for file in folder.glob("pid-*") if (text := file.read_text())]
        return found if len(found) == count else []

    return wait_until(pids)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in ("Z", "X")
    except OSError:
        return True


@pytest.mark.parametrize(
    ("codes", "together"),
    [
        ([0, 0], 0),
        ([0, 143], 143),
        ([143, 1], 1),
        ([137, 2, 143], 2),
        ([75, 143], 75),
        ([139, 143], 143),
        ([144, 143], 143),
        ([], 143),
    ],
)
def test_a_job_succeeds_where_all_processes_do_and_fails_by_its_own_error_alone(codes: list[int], together: int) -> None:
    assert verdict(codes) == together


def test_every_line_is_marked_with_its_rank_and_arguments_arrive(start: Start) -> None:
    code, lines = end(start("print('out', sys.argv[1:]); print('err', file=sys.stderr)", own_forks=True))
    assert code == 0
    assert {"[rank 0] out ['argument']", "[rank 1] out ['argument']", "[rank 0] err", "[rank 1] err"} <= set(lines)


def test_an_event_says_its_rank_and_a_failure_the_last_lines_before_it(start: Start) -> None:
    program = "from edm2core.events import emit\nif rank: print('why'); emit('failed', what='no'); sys.exit(1)\nwork()"
    code, lines = end(start(program))
    (failure,) = [json.loads(line.removeprefix("@edm2 ")) for line in lines if line.startswith("@edm2 ") and "failed" in line]
    assert (code, failure["rank"], failure["lines"]) == (1, 1, ["[rank 1] why"])


def test_lines_and_events_say_the_rendezvous_from_the_second_on(start: Start) -> None:
    program = (
        "from edm2core.events import emit\nprint('early')\nfor number in (1, 2):\n"
        "    emit('rendezvous', number=number, processes=2); print('line', number); emit('warning', message=str(number))"
    )
    lines = end(start(program))[1]
    assert {"[rank 0] early", "[rank 1] line 1", "[rank 0, rendezvous 2] line 2", "[rank 1, rendezvous 2] line 2"} <= set(lines)
    events = [json.loads(line.removeprefix("@edm2 ")) for line in lines if "warning" in line]
    assert {(event["message"], event["rank"], event.get("rendezvous")) for event in events} == {
        ("1", 0, None),
        ("1", 1, None),
        ("2", 0, 2),
        ("2", 1, 2),
    }


@pytest.mark.parametrize(("said", "code"), [("NCCL error: remote process exited or there was a network error", 143), ("a bug", 134)])
def test_a_process_that_nccl_aborts_for_want_of_a_peer_has_no_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    program = f"import os; print({said!r}, flush=True); os.abort()"
    assert supervise(["-c", program], tmp_path, 30.0, lambda: False, lambda: False, "1") == code


def test_an_error_of_one_process_is_that_of_all(start: Start) -> None:
    code, lines = end(start("sys.exit(2) if rank else work()"))
    assert code == 2
    assert not [line for line in lines if "Traceback" in line]


def test_a_killed_process_asks_for_a_restart_and_is_named(start: Start) -> None:
    code, lines = end(start("os.kill(os.getpid(), signal.SIGKILL) if rank else work()"))
    assert code == 143
    assert any("rank 1 was killed by SIGKILL" in json.loads(line.partition("@edm2 ")[2])["message"] for line in lines if "@edm2" in line)


def test_a_sigterm_lets_every_process_save_however_long_the_slowest_takes(start: Start, tmp_path: Path) -> None:
    entry = start("while not signals.asked(): time.sleep(.05)\ntime.sleep(6 * rank); (here / f'saved-{rank}').touch(); sys.exit(143)")
    running(tmp_path)
    entry.send_signal(signal.SIGTERM)
    assert end(entry)[0] == 143
    assert {file.name for file in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}


def test_a_silent_process_is_ended_to_go_on_from_the_last_state(start: Start) -> None:
    steps = "beat = Heartbeat()\nfor _ in range(40):\n    beat.step(); time.sleep(.05)\n"
    program = f"{steps}os.kill(os.getpid(), signal.SIGSTOP) if rank else work()"
    code, lines = end(start(program, "--hang-s", "1.5"))
    assert code == 143
    assert any("hangs" in line for line in lines)


@pytest.mark.parametrize("where", ["before its first step", pytest.param("in a pause", marks=pytest.mark.slow)])
def test_a_process_that_is_stopped_outside_its_steps_is_ended_too(start: Start, where: str) -> None:
    steps = (
        ""
        if where == "before its first step"
        else "beat = Heartbeat()\nfor _ in range(20):\n    beat.step(); time.sleep(.01)\nbeat.pause()\n"
    )
    code, lines = end(start(f"{steps}os.kill(os.getpid(), signal.SIGSTOP) if rank else work()", "--hang-s", "1.5"))
    assert code == 143
    assert any("rank 1 has been stopped from outside" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "process",
    ["os.getppid()", "int(pathlib.Path(os.environ['EDM2_BEAT']).with_name('began-1').read_text())"],
    ids=["forks it", "supervises it"],
)
def test_stopping_what_a_process_depends_on_ends_the_job_as_well(start: Start, tmp_path: Path, process: str) -> None:
    code, lines = end(start(f"os.kill({process}, signal.SIGSTOP) if rank else work()", "--hang-s", "1.5", own_forks=True))
    assert code == 143
    assert any("stopped from outside" in line for line in lines)
    assert all(map(gone, running(tmp_path)))


def test_a_pause_between_steps_is_no_silence(start: Start) -> None:
    program = "beat = Heartbeat()\nfor _ in range(20):\n    beat.step(); time.sleep(.05)\nbeat.pause(); time.sleep(2)"
    assert end(start(program, "--hang-s", "0.5", processes=1))[0] == 0


def test_no_process_outlives_a_killed_entry_program(start: Start, tmp_path: Path) -> None:
    entry = start("work_deaf_to_signals()", own_forks=True)
    pids = running(tmp_path)
    entry.kill()
    wait_until(lambda: all(map(gone, pids)), 20)
    entry.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("code", [0, 1, 2, 75, 143])
def test_a_single_process_needs_no_torchrun_and_keeps_its_code(start: Start, code: int) -> None:
    assert end(start(f"print('alone'); sys.exit({code})", processes=1)) == (code, ["alone"])


def test_in_a_pod_a_passing_fault_asks_for_a_restart(start: Start, tmp_path: Path) -> None:
    entry = start("(here / 'ended').touch(); sys.exit(75)", "--pod", processes=1)
    (pid,) = running(tmp_path, 1)
    wait_until(lambda: gone(pid))
    entry.send_signal(signal.SIGTERM)  # else it waits for a while, so that restarts do not follow one another
    assert end(entry)[0] == 143


def test_processes_keep_their_memory_unless_told_otherwise(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    show = "print(os.environ['GLIBC_TUNABLES'])"
    assert "hugetlb=1" in end(start(show, processes=1))[1][-1]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    assert end(start(show, processes=1))[1][-1] == "glibc.malloc.check=0"


@pytest.mark.parametrize(("rank", "hosts"), [("0", "true"), ("1", "false")])
def test_nodes_of_a_trainjob_meet_at_its_first_pod_which_hosts_the_rendezvous(
    monkeypatch: pytest.MonkeyPatch, rank: str, hosts: str
) -> None:
    for name, value in {"PET_MASTER_ADDR": "j-node-0-0.j", "PET_MASTER_PORT": "29500", "PET_NODE_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    options = _meeting_place()
    assert options[options.index("--rdzv-endpoint") + 1] == "j-node-0-0.j:29500"
    assert f"is_host={hosts}" in options[options.index("--rdzv-conf") + 1].split(",")
    assert options[options.index("--rdzv-backend") + 1] == "c10d"


def test_nodes_of_a_pytorchjob_meet_where_its_operator_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_RDZV_BACKEND", "c10d")
    monkeypatch.setenv("PET_MASTER_ADDR", "elsewhere")
    assert _meeting_place() == []
