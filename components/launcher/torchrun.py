"""Runs torchrun once: this node's processes of a job, from their rendezvous with those of the other nodes until they have ended."""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.launcher.forks import Forks, Process, begin
from components.launcher.processes import Stopped, of_one_machine, send
from components.launcher.rank import ALIVE, FORKS, PATIENCE_S, STOP
from edm2core.events import emit
from edm2core.worker.exit_codes import DONE, INTERRUPTED

TORCHRUN = "torch.distributed.run"
POLL_S = 0.1
LINGER_S = 15.0  # the most time that torchrun may take to end after one of its processes has failed
LEAVE_S = 1.0  # the same, once all of its processes have ended
RENDEZVOUS = {"read_timeout": "10", "join_timeout": "120"}  # as in job_kinds/pytorchjob.py
NO_RENDEZVOUS = ("Rendezvous", "DistNetworkError", "DistStoreError")  # how the errors of a rendezvous that failed are called


@dataclass(frozen=True)
class Node:
    """What runs on this node: `processes` processes of a job of `nodes` nodes, each `python -m COMMAND`."""

    nodes: int
    processes: int
    hang_s: float
    command: list[str]
    forks: Forks  # has imported torchrun and the stage


@dataclass(frozen=True)
class Ended:
    """How a run of torchrun ended. `codes` are its processes' exit codes; if torchrun failed, without those of success."""

    codes: list[int]
    met: bool  # whether the rendezvous was complete, so that processes began
    lost_peers: bool  # whether it ended only because processes of another node were lost, or did not come


def run_torchrun(node: Node, folder: Path, asked: Callable[[], bool], ended: Callable[[], bool], wait_s: float) -> Ended:
    """Run torchrun to its end. `asked` says whether the processes should save and stop, `ended` whether they should end now.

    It waits for the other nodes for `wait_s` seconds at most. `folder` is empty, and for this run alone.
    """
    os.mkfifo(folder / ALIVE)
    alive = os.open(folder / ALIVE, os.O_RDWR)  # the system closes it when this process ends, however it ends
    # A session of its own: a signal to this process's group must not make torchrun kill processes that are saving.
    said, errors = os.pipe()
    environment = {**environment_of(node.nodes), FORKS: node.forks.address}
    torchrun = begin(node.forks.address, _arguments(node, folder), environment, sys.stdout.fileno(), errors)
    os.close(errors)
    words = deque[bytes](maxlen=40)
    listen = threading.Thread(target=words.extend, args=(os.fdopen(said, "rb"),), daemon=True)
    listen.start()
    killed = _watch(torchrun, node, folder, asked, ended, time.monotonic() + wait_s)
    end = torchrun.returncode or DONE
    os.close(alive)
    wait_until = time.monotonic() + PATIENCE_S + 2.0  # without torchrun the processes end too, and the next ones need their devices
    while len(list(folder.glob("code-*"))) < len(list(folder.glob("began-*"))) and time.monotonic() < wait_until:
        time.sleep(POLL_S)
    listen.join(2.0)
    codes, began = _numbers(folder, "code-*"), len(list(folder.glob("began-*")))
    text = b"".join(words).decode(errors="replace").rstrip()
    alone = not began and (killed or any(name in text for name in NO_RENDEZVOUS))
    if not began and not alone and end and not asked():
        sys.stdout.write(f"The processes of {os.uname().nodename} could not be started:\n{text}\n")
        sys.stdout.flush()
    left = bool(codes) and len(codes) == began and any(codes) and not {*codes} - {DONE, INTERRUPTED}
    by_itself = end >= 0 or killed
    codes = codes if end == DONE else [code for code in codes if code != DONE]
    return Ended(codes, began > 0, node.nodes > 1 and by_itself and (alone or left))


def _watch(torchrun: Process, node: Node, folder: Path, asked: Callable[[], bool], ended: Callable[[], bool], wait_until: float) -> bool:
    """Return when torchrun has ended: whether it was killed here, because it lingered or no other node came in time."""
    failed_at: float | None = None
    stopped, killed = Stopped(), False
    while torchrun.poll() is None:
        codes, began = _numbers(folder, "code-*"), len(list(folder.glob("began-*")))
        for pid in (torchrun.pid, node.forks.pid, *_numbers(folder, "began-*")):
            if stopped.seconds(pid) > node.hang_s:
                said = f"process {pid} of this job has been stopped from outside (SIGSTOP); ended, to go on from the last state"
                emit("warning", message=said)
                send(pid, signal.SIGKILL)
        if asked():
            (folder / STOP).touch()
        saving = asked() and len(codes) < began
        if not any(codes) or saving:
            failed_at = None  # the time to linger begins only once a process has failed and none is saving any more
        elif failed_at is None:
            failed_at = time.monotonic()
        linger_s = LEAVE_S if len(codes) == node.processes else LINGER_S
        alone = not began and (asked() or time.monotonic() > wait_until)  # torchrun still looks for the other nodes
        if ended() or alone or (failed_at is not None and time.monotonic() - failed_at > linger_s):
            killed = True
            send(torchrun.pid, signal.SIGKILL, os.killpg)
        time.sleep(POLL_S)
    return killed


def _arguments(node: Node, folder: Path) -> list[str]:
    where = ["--nnodes", str(node.nodes), *_meeting_place()] if node.nodes > 1 else ["--standalone", "--nnodes", "1"]
    count = ["--nproc-per-node", str(node.processes), "--max-restarts", "0"]
    rank = ["-m", "components.launcher.rank", str(folder), str(node.hang_s)]
    return ["-m", TORCHRUN, *where, *count, *rank, *node.command]


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


def environment_of(nodes: int) -> dict[str, str]:
    """torchrun's environment. On one node it lacks the variables that would make processes look for other nodes."""
    environment = of_one_machine(os.environ) if nodes == 1 else dict(os.environ)
    environment.pop("EDM2_DIE_WITH_PARENT", None)
    return {"OMP_NUM_THREADS": "1", **environment}


def _numbers(folder: Path, files: str) -> list[int]:
    """The numbers in these files of the ranks' supervisors (rank.py): pids in began-*, exit codes in code-*."""
    return [int(text) for file in sorted(folder.glob(files)) if (text := file.read_text(encoding="utf-8"))]
