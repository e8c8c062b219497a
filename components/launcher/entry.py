"""The program of a job on one node: `python -m components.launcher.entry --nproc-per-node N -m MODULE ARGUMENT…`.

It starts the node's processes, with torchrun if the job has several. Its exit code says whether a restart can help. 0: all processes
finished. 1 or 2: a process had an error of its own, which no restart cures. 143: a process saved and stopped, was killed or hung, or
another of the job was lost. 75: try again later. In a pod 75 becomes 143 after a pause, since there a code below 128 ends the job for good.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO

from components.launcher.environment import of_one_machine
from components.launcher.rank import ALIVE, STOP, supervise
from components.launcher.stopped import Stopped
from edm2core.events import emit
from edm2core.worker.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED, TRY_AGAIN
from edm2core.worker.signals import to_stop

POLL_S = 0.1
LINGER_S = 15.0  # how long torchrun may take to end after one of its processes has failed
PAUSE_S = 10.0  # before a pod asks for a restart because of a passing fault


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m components.launcher.entry")
    parser.add_argument("--nproc-per-node", type=int, default=1)
    parser.add_argument("--nnodes", type=int, default=1, help="more than one: the environment (PET_*) says where the others are")
    parser.add_argument("--hang-s", type=float, default=30.0, help="silence beyond the usual step that is taken for hanging")
    parser.add_argument("--pod", action="store_true", help="in a pod that is recreated when it ends with a code of 128 or more")
    parser.add_argument("-m", dest="command", nargs=argparse.REMAINDER, required=True, metavar="MODULE ARGUMENT")
    options = parser.parse_args()
    asked = threading.Event()

    def remember(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    for number in to_stop():
        signal.signal(number, remember)
    with tempfile.TemporaryDirectory(prefix="edm2-job-") as name:
        folder = Path(name)
        if options.nnodes == options.nproc_per_node == 1:
            codes = [supervise(["-m", *options.command], folder, options.hang_s, asked.is_set, _watch_parent(), "")]
        else:
            codes = _torchrun(options, folder, asked)
    code = verdict(codes)
    if code == TRY_AGAIN and options.pod:
        asked.wait(PAUSE_S)
        return INTERRUPTED
    return code


def verdict(codes: list[int]) -> int:
    """One exit code for those of all processes. No code at all means that they never ran, or were killed together with torchrun."""
    for permanent in (BAD_INPUT, FAILED):
        if permanent in codes:
            return permanent
    if codes and all(code == DONE for code in codes):
        return DONE
    return TRY_AGAIN if TRY_AGAIN in codes else INTERRUPTED


def _torchrun(options: argparse.Namespace, folder: Path, asked: threading.Event) -> list[int]:
    """Run torchrun; the exit codes of this node's processes. Unless torchrun itself succeeds, no success among them counts."""
    gone, words = _watch_parent(), deque[str](maxlen=40)
    os.mkfifo(folder / ALIVE)
    alive = os.open(folder / ALIVE, os.O_RDWR)  # the system closes it when this process ends, however it ends
    # A session of its own: a signal to this process's group must not make torchrun kill processes that are saving.
    torchrun = subprocess.Popen(
        _command(options, folder), env=_environment(options), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    assert torchrun.stderr is not None  # noqa: S101
    listen = threading.Thread(target=_listen, args=(torchrun.stderr, words), daemon=True)
    listen.start()
    failed_at: float | None = None
    stopped = Stopped()
    while torchrun.poll() is None:
        codes = _codes(folder)
        _kill_stopped([torchrun.pid, *_supervisors(folder)], stopped, options.hang_s)
        if asked.is_set():
            (folder / STOP).touch()
        saving = asked.is_set() and len(codes) < len(list(folder.glob("began-*")))
        if not any(codes) or saving:
            failed_at = None  # all work, or some are still saving
        elif failed_at is None:
            failed_at = time.monotonic()
        nothing_to_save = asked.is_set() and not any(folder.glob("began-*"))  # still looking for the other nodes
        if gone() or nothing_to_save or (failed_at is not None and time.monotonic() - failed_at > LINGER_S):
            os.killpg(torchrun.pid, signal.SIGKILL)
        time.sleep(POLL_S)
    os.close(alive)
    listen.join(2.0)
    codes = _codes(folder)
    if torchrun.returncode == 0:
        return codes
    if not codes and not asked.is_set():
        sys.stdout.write("\n".join([f"The processes of {os.uname().nodename} could not be started:", *words]) + "\n")
    return [code for code in codes if code != DONE]


def _kill_stopped(pids: list[int], stopped: Stopped, hang_s: float) -> None:
    """Kill processes that a signal has stopped for too long."""
    for pid in pids:
        if stopped.seconds(pid) > hang_s:
            said = f"process {pid} of this job has been stopped from outside (SIGSTOP); ended, to go on from the last state"
            emit("warning", message=said)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _command(options: argparse.Namespace, folder: Path) -> list[str]:
    where = ["--nnodes", str(options.nnodes)] if options.nnodes > 1 else ["--standalone", "--nnodes", "1"]
    count = ["--nproc-per-node", str(options.nproc_per_node), "--max-restarts", "0"]
    rank = ["-m", "components.launcher.rank", str(folder), str(options.hang_s)]
    return [sys.executable, "-m", "torch.distributed.run", *where, *count, *rank, *options.command]


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """torchrun's environment. On one node it lacks the variables by which processes would look for other nodes."""
    kept = of_one_machine(os.environ) if options.nnodes == 1 else dict(os.environ)
    kept.setdefault("OMP_NUM_THREADS", "1")
    kept.pop("EDM2_DIE_WITH_PARENT", None)
    return kept


def _codes(folder: Path) -> list[int]:
    found = (file.read_text(encoding="utf-8") for file in sorted(folder.glob("code-*")))
    return [int(text) for text in found if text]


def _supervisors(folder: Path) -> list[int]:
    """The pids of the supervisors (rank.py) that torchrun has started last."""
    return [int(text) for file in folder.glob("began-*") if (text := file.read_text(encoding="utf-8"))]


def _listen(source: IO[bytes], words: deque[str]) -> None:
    for line in source:
        words.append(line.decode(errors="replace").rstrip())


def _watch_parent() -> Callable[[], bool]:
    """A function that says whether the process that `EDM2_DIE_WITH_PARENT` names is no longer the parent."""
    parent = int(os.environ.get("EDM2_DIE_WITH_PARENT", "0"))
    return lambda: parent != 0 and os.getppid() != parent


if __name__ == "__main__":
    sys.exit(main())
