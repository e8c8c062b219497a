"""The program of a job on one node: `python -m components.launcher.entry --nproc-per-node N -m MODULE ARGUMENT…`.

It starts the node's processes, with torchrun if the job has several. When processes of another node are lost, it stays, and its own begin
again in a new rendezvous as soon as the lost ones have successors.

Its exit code says whether a restart can help. 0: all processes finished. 1 or 2: a process had an error of its own, which no restart
cures. 143: a process saved and stopped, was killed or hung, its device failed, or no successor of a lost process came in time. 75: try
again later. In a pod 75 becomes 143 after a pause, since there a code below 128 would end the job for good.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from components.launcher.forks import Forks
from components.launcher.processes import MALLOC
from components.launcher.rank import supervise
from components.launcher.torchrun import TORCHRUN, Node, environment_of, run_torchrun
from edm2core.events import emit
from edm2core.worker.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED, TRY_AGAIN
from edm2core.worker.signals import to_stop

STAGES = "edm2core.stages."  # how the modules of stages begin
PAUSE_S = 10.0  # the time that a pod waits before it asks for a restart because of a passing fault
FIRST_S = 120.0  # the least time that a pod waits for the job's other pods when it begins: they may begin much later
AGAIN_S = 1.0  # the pause after a rendezvous that failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m components.launcher.entry")
    parser.add_argument("--nproc-per-node", type=int, default=1)
    parser.add_argument("--nnodes", type=int, default=1, help="if more than one, the variables PET_* say where the others are")
    parser.add_argument("--hang-s", type=float, default=30.0, help="how much longer than usual a step may take until it counts as hung")
    parser.add_argument("--rejoin-s", type=float, default=120.0, help="how long to wait for a lost node's successor")
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
            forks = Forks(imported(options.command), {**MALLOC, **environment_of(options.nnodes)})
            node = Node(options.nnodes, options.nproc_per_node, options.hang_s, options.command, forks)
            codes = meet(node, folder, asked, options.rejoin_s)
    code = verdict(codes)
    if code == TRY_AGAIN and options.pod:
        asked.wait(PAUSE_S)
        return INTERRUPTED
    return code


def imported(command: list[str]) -> list[str]:
    """The modules that torchrun and processes of this command import, in the order in which they need them."""
    if not command[0].startswith(STAGES):
        return [TORCHRUN]
    client = ["edm2core.store.s3"] if any(word.startswith(("s3://", "minio://")) for word in command) else []
    return [TORCHRUN, command[0], *client, "torch._dynamo"]  # which DistributedDataParallel imports when it is made


def meet(node: Node, folder: Path, asked: threading.Event, rejoin_s: float) -> list[int]:
    """Run this node's processes, again in a new rendezvous whenever another node's were lost. Returns the exit codes of the last ones.

    Gives up, without codes, once the other nodes have been missing for `rejoin_s` seconds, at the beginning for FIRST_S at least.
    """
    number, patience_s, alone_since = 0, max(rejoin_s, FIRST_S), time.monotonic()
    while True:
        number += 1
        (folder / str(number)).mkdir()
        wait_s = patience_s - (time.monotonic() - alone_since)
        ended = run_torchrun(node, folder / str(number), asked.is_set, _parent_is_gone, wait_s)
        if asked.is_set() or _parent_is_gone() or not ended.lost_peers:
            return ended.codes
        here = os.uname().nodename
        if ended.met:
            patience_s, alone_since = rejoin_s, time.monotonic()
            emit("warning", message=f"{here} has lost processes of another pod; it stays, to go on with their successors")
        elif time.monotonic() - alone_since > patience_s - AGAIN_S:
            emit("warning", message=f"{here} has waited {patience_s:.0f} s for the job's other pods; it ends, so that it can begin anew")
            return []
        else:
            asked.wait(AGAIN_S)


def verdict(codes: list[int]) -> int:
    """One exit code, made of those of all processes. If there are none, the processes never ran or were killed together with torchrun."""
    if codes and all(code == DONE for code in codes):
        return DONE
    return next((code for code in (BAD_INPUT, FAILED, TRY_AGAIN) if code in codes), INTERRUPTED)


def _parent_is_gone() -> bool:
    """Whether `EDM2_DIE_WITH_PARENT` names a parent process that has ended."""
    return os.environ.get("EDM2_DIE_WITH_PARENT", "0") not in ("0", str(os.getppid()))


if __name__ == "__main__":
    sys.exit(main())
