"""Supervises one process of a job: adds its rank to what it prints, ends it when it hangs, and records its exit code.

torchrun starts `python -m components.launcher.rank FOLDER HANG_S MODULE ARGUMENT…` for each rank.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from components.launcher.forks import begin
from components.launcher.processes import MALLOC, Stopped, send
from edm2core.events import MARK, emit, parse
from edm2core.worker.exit_codes import DONE, INTERRUPTED
from edm2core.worker.heartbeat import silence

POLL_S = 0.1
PATIENCE_S = 5.0  # the most time that a process may take to end once it is told to, because another process of its job has failed
CULPRIT_FIRST_S = 2.0  # how much later a hanging process is ended than a stopped one: it may only wait for that one
STOP = "stop"  # a file in the folder: every rank saves and stops
NCCL_LOST = ("ncclRemoteError", "remote process exited")  # what NCCL prints when it ends its process because a peer is lost
FORKS = "EDM2_FORKS"  # the variable with the address of a process that has imported the stage (forks.py)
ALIVE = "alive"  # a named pipe in the folder; the entry program holds its other end


def supervise(arguments: list[str], folder: Path, hang_s: float, asked: Callable[[], bool], ended: Callable[[], bool], rank: str) -> int:
    """Run `python ARGUMENT…` to its end and return its exit code (128 + n if signal n ended it).

    `asked` says whether the process should save and stop, `ended` whether it should end now. A process that is then killed counts as
    interrupted. Its lines say its `rank`, unless it is empty.
    """
    beat = folder / f"beat-{os.environ.get('LOCAL_RANK', '0')}"
    beat.write_text("", encoding="utf-8")
    environment = {**MALLOC, **os.environ, "EDM2_BEAT": str(beat), "EDM2_DIE_WITH_PARENT": str(os.getpid())}
    forks, (printed, output) = environment.pop(FORKS, ""), os.pipe()
    child = begin(forks, arguments, environment, output, output)
    os.close(output)
    last = deque[str](maxlen=20)
    pump = threading.Thread(target=_pump, args=(os.fdopen(printed, "rb"), rank, last), daemon=True)
    pump.start()
    told, left, kill_at, why, stopped = False, False, float("inf"), "", Stopped()
    while child.poll() is None:
        if ended() and kill_at == float("inf"):
            send(child.pid, signal.SIGTERM)
            left, kill_at = True, time.monotonic() + PATIENCE_S
        elif asked() and not told:
            send(child.pid, signal.SIGTERM)
            told = True
        quiet, still = silence(beat), stopped.seconds(child.pid)
        if not why and quiet > hang_s + (0.0 if still else CULPRIT_FIRST_S):
            why = f"made no step for {quiet:.0f} s more than usual, so it hangs; ended, to go on from the last state"
        elif not why and still > hang_s:
            why = f"has been stopped from outside (SIGSTOP) for {still:.0f} s; ended, to go on from the last state"
        if why or time.monotonic() > kill_at:
            send(child.pid, signal.SIGKILL)
        time.sleep(POLL_S)
    pump.join(2.0)
    code = child.returncode or DONE
    if code < 0 and not why and not told and kill_at == float("inf"):
        why = f"was killed by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    if why:
        emit("warning", message=f"rank {rank or 0} {why}")
    aborted = code == -signal.SIGABRT and any(sign in line for line in last for sign in NCCL_LOST)
    if (code < 0 and left and not why) or aborted:
        return INTERRUPTED
    return code if code >= 0 else 128 - code


def _pump(source: IO[bytes], rank: str, last: deque[str]) -> None:
    """Pass lines on with their rank, each in one write, so that lines of several ranks do not mix.

    An event gets the rank as a field. An event of a failure also gets the last lines before it. Other lines are shown as `[rank N] …`.
    From the second rendezvous of the job's processes on, all say its number: `[rank N, rendezvous M] …`. `last` gets the latest lines.
    """
    again, met = dict[str, int](), ""
    for data in source:
        line = data.decode(errors="replace").removesuffix("\n")
        if rank and (event := parse(line)):
            if event["kind"] == "rendezvous" and int(event["number"]) > 1:
                again, met = {"rendezvous": int(event["number"])}, f", rendezvous {event['number']}"
            before = {"lines": [*last]} if event["kind"] == "failed" else {}
            line = MARK + json.dumps({**event, "rank": int(rank), **again, **before}, separators=(",", ":"))
        elif rank:
            line = f"[rank {rank}{met}] {line}"
            last.append(line[:300])
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main() -> int:
    folder, hang_s, arguments = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    parent, entry, signalled = os.getppid(), os.open(folder / ALIVE, os.O_RDONLY | os.O_NONBLOCK), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: signalled.set())
    verdict = folder / f"code-{os.environ['LOCAL_RANK']}"
    (folder / f"began-{os.environ['LOCAL_RANK']}").write_text(str(os.getpid()), encoding="utf-8")

    def ended() -> bool:
        return signalled.is_set() or os.getppid() != parent or _closed(entry)

    stop = folder / STOP
    code = INTERRUPTED if stop.exists() else supervise(["-m", *arguments], folder, hang_s, stop.exists, ended, os.environ["RANK"])
    verdict.write_text(str(code), encoding="utf-8")
    while stop.exists() and len(list(folder.glob("code-*"))) < int(os.environ["LOCAL_WORLD_SIZE"]) and not _closed(entry):
        time.sleep(POLL_S)  # as soon as one process exits, torchrun ends the others, which may still be saving
    return code


def _closed(pipe: int) -> bool:
    """Whether nobody holds the pipe's other end any more."""
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    sys.exit(main())
