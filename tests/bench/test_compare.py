"""What a measurement leaves behind when it is given up, and what it says of a side that dies."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.compare import Side, in_turn
from tests.waiting import wait_until

PATIENCE_S = 120.0


def test_a_side_that_is_killed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())]))
    with pytest.raises(RuntimeError, match=r"dying:dying .* was killed, most likely since the machine ran out of memory"):
        in_turn({"dying": Side("dying:dying")}, 1)


def below(process: int) -> set[int]:
    """The processes that a process started, those that they started among them."""
    children = {int(child) for path in Path(f"/proc/{process}/task").glob("*/children") for child in path.read_text().split()}
    return children.union(*(below(child) for child in children))


def _hear_ctrl_c() -> None:
    """A shell that starts the tests in the background has them ignore it, and so all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_row_that_is_given_up_leaves_no_process_and_no_file(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "bench", "processes", "--repeats", "1000", "--batch", "2", "--threads", "1"]
    bench = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True, preexec_fn=_hear_ctrl_c)
    try:
        given_up(bench, tmp_path, how)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(bench.pid, signal.SIGKILL)


def given_up(bench: subprocess.Popen[bytes], folder: Path, how: signal.Signals) -> None:
    """Stop a benchmark at work and look for what it leaves."""

    def at_work() -> bool:
        assert bench.poll() is None
        return bool(list(folder.glob("edm2-bench-*/*/meeting")))  # of a side and the process that it starts

    wait_until(at_work, PATIENCE_S)
    started = below(bench.pid)
    bench.send_signal(how)
    assert bench.wait(PATIENCE_S) == 128 + how
    assert not list(folder.glob("edm2-bench-*"))
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in started), PATIENCE_S)
