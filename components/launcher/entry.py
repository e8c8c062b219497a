"""The program of a job on one node: `python -m components.launcher.entry --nproc-per-node N -m MODULE ARGUMENT…`.

It starts the node's processes, with torchrun if the job has several. Its exit code says whether a restart can help. 0: all processes
finished. 1 or 2: a process had an error of its own, which no restart cures. 143: a process saved and stopped, was killed or hung, or
another process of the job was lost. 75: try again later. In a pod 75 becomes 143 after a pause, since there a code below 128 would end the
job for good.
"""

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
from pathlib import Path

from components.launcher.processes import Stopped, of_one_machine
from components.launcher.rank import ALIVE, STOP, supervise
from edm2core.events import emit
from edm2core.worker.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED, TRY_AGAIN
from edm2core.worker.signals import to_stop

POLL_S = 0.1
RENDEZVOUS = {"read_timeout": "10", "join_timeout": "120"}  # as in job_kinds/pytorchjob.py
LINGER_S = 15.0  # the most time that torchrun may take to end after one of its processes has failed
PAUSE_S = 10.0  # the time that a pod waits before it asks for a restart because of a passing fault


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m components.launcher.entry")
    parser.add_argument("--nproc-per-node", type=int, default=1)
    parser.add_argument("--nnodes", type=int, default=1, help="if more than one, the variables PET_* say where the others are")
    parser.add_argument("--hang-s", type=float, default=30.0, help="how much longer than usual a step may take until it counts as hung")
    parser.add_argument("--pod", action="store_true", help="run in a pod, which is recreated if it ends with a code of 128 or more")
    parser.add_argument("-m", dest="command", nargs=argparse.REMAINDER, required=True, metavar="MODULE ARGUMENT")
    options = parser.parse_args()
    asked = threading.Event()
    for number in to_stop():
        signal.signal(number, lambda *_: asked.set())
    with tempfile.TemporaryDirectory(prefix="edm2-job-") as name:
        folder = Path(name)
        if options.nnodes == options.nproc_per_node == 1:
            codes = [supervise(["-m", *options.command], folder, options.hang_s, asked.is_set, _parent_is_gone, "")]
        else:
            codes = _torchrun(options, folder, asked)
    code = verdict(codes)
    if code == TRY_AGAIN and options.pod:
        asked.wait(PAUSE_S)
        return INTERRUPTED
    return code


def verdict(codes: list[int]) -> int:
    """One exit code, made of those of all processes. If there are none, the processes never ran or were killed together with torchrun."""
    if codes and all(code == DONE for code in codes):
        return DONE
    return next((code for code in (BAD_INPUT, FAILED, TRY_AGAIN) if code in codes), INTERRUPTED)


def _torchrun(options: argparse.Namespace, folder: Path, asked: threading.Event) -> list[int]:
    """Run torchrun, and return the exit codes of this node's processes. If torchrun itself fails, the codes of success are left out."""
    os.mkfifo(folder / ALIVE)
    alive = os.open(folder / ALIVE, os.O_RDWR)  # the system closes it when this process ends, however it ends
    # A session of its own: a signal to this process's group must not make torchrun kill processes that are saving.
    torchrun = subprocess.Popen(
        _command(options, folder), env=_environment(options), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    assert torchrun.stderr is not None  # noqa: S101
    words = deque[bytes](maxlen=40)
    listen = threading.Thread(target=words.extend, args=(torchrun.stderr,), daemon=True)
    listen.start()
    failed_at: float | None = None
    stopped = Stopped()
    while torchrun.poll() is None:
        codes = _numbers(folder, "code-*")
        _kill_stopped([torchrun.pid, *_numbers(folder, "began-*")], stopped, options.hang_s)
        if asked.is_set():
            (folder / STOP).touch()
        saving = asked.is_set() and len(codes) < len(list(folder.glob("began-*")))
        if not any(codes) or saving:
            failed_at = None  # the time to linger begins only once a process has failed and none is saving any more
        elif failed_at is None:
            failed_at = time.monotonic()
        nothing_to_save = asked.is_set() and not any(folder.glob("began-*"))  # torchrun still looks for the other nodes
        if _parent_is_gone() or nothing_to_save or (failed_at is not None and time.monotonic() - failed_at > LINGER_S):
            os.killpg(torchrun.pid, signal.SIGKILL)
        time.sleep(POLL_S)
    os.close(alive)
    listen.join(2.0)
    codes = _numbers(folder, "code-*")
    if torchrun.returncode == 0:
        return codes
    if not codes and not asked.is_set():
        said = b"".join(words).decode(errors="replace").rstrip()
        sys.stdout.write(f"The processes of {os.uname().nodename} could not be started:\n{said}\n")
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
    where = ["--nnodes", str(options.nnodes), *_meeting_place()] if options.nnodes > 1 else ["--standalone", "--nnodes", "1"]
    count = ["--nproc-per-node", str(options.nproc_per_node), "--max-restarts", "0"]
    rank = ["-m", "components.launcher.rank", str(folder), str(options.hang_s)]
    return [sys.executable, "-m", "torch.distributed.run", *where, *count, *rank, *options.command]


def _meeting_place() -> list[str]:
    """torchrun's options for where the nodes meet, unless its variables say that already, as in a PyTorchJob.

    A TrainJob's variables name the first pod. That pod has to be told that it hosts the rendezvous: its own name may not be known yet.
    """
    if "PET_MASTER_ADDR" not in os.environ or "PET_RDZV_BACKEND" in os.environ:
        return []
    conf = {**RENDEZVOUS, "is_host": str(os.environ.get("PET_NODE_RANK") == "0").lower()}
    endpoint = f"{os.environ['PET_MASTER_ADDR']}:{os.environ.get('PET_MASTER_PORT', '29500')}"
    settings = ",".join(f"{name}={value}" for name, value in conf.items())
    return ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-conf", settings]


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """torchrun's environment. On one node it lacks the variables that would make processes look for other nodes."""
    environment = of_one_machine(os.environ) if options.nnodes == 1 else dict(os.environ)
    environment.pop("EDM2_DIE_WITH_PARENT", None)
    return {"OMP_NUM_THREADS": "1", **environment}


def _numbers(folder: Path, files: str) -> list[int]:
    """The numbers in these files of the ranks' supervisors (rank.py): pids in began-*, exit codes in code-*."""
    return [int(text) for file in sorted(folder.glob(files)) if (text := file.read_text(encoding="utf-8"))]


def _parent_is_gone() -> bool:
    """Whether `EDM2_DIE_WITH_PARENT` names a parent process that has ended."""
    return os.environ.get("EDM2_DIE_WITH_PARENT", "0") not in ("0", str(os.getppid()))


if __name__ == "__main__":
    sys.exit(main())
